"""One result file a benchmark: what was measured, on what, from which revision, against which goal."""

from __future__ import annotations

import datetime
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from equipoise import __version__, hardware, storage

REPOSITORY = Path(__file__).resolve().parents[1]
RESULTS = REPOSITORY / "benchmarks" / "results"


@dataclass(frozen=True)
class Measured:
    """A figure and its goal; `better` says on which side of the goal it should lie."""

    name: str
    value: float
    goal: float
    better: Literal["higher", "lower"]

    @property
    def met(self) -> bool:
        """Whether the value reaches the goal; equal is enough."""
        return self.value >= self.goal if self.better == "higher" else self.value <= self.goal

    @property
    def ratio(self) -> float | None:
        """The value as a multiple of the goal; None where the goal is 0."""
        return self.value / self.goal if self.goal else None


@dataclass(frozen=True)
class Provenance:
    """Where figures come from: a machine, a time (ISO 8601, UTC) and a revision of the code."""

    machine: dict[str, Any]
    date: str
    revision: str


def measured_here_and_now() -> Provenance:
    """This machine, this moment and this checkout."""
    now = datetime.datetime.now(tz=datetime.UTC).isoformat(timespec="seconds")
    return Provenance(hardware.describe_hardware(), now, checkout_revision())


def write_result(
    name: str, command: str, figures: list[Measured], provenance: Provenance, folder: Path = RESULTS
) -> Path:
    """Put `NAME.json`, whole or not at all; returns its path."""
    file = folder / f"{name}.json"
    record = {**asdict(provenance), "command": command, "figures": [asdict(figure) for figure in figures]}
    storage.put_json(str(file), record)
    return file


def checkout_revision() -> str:
    """Version and commit, with `-dirty` where the checkout has changes; the version alone without git."""
    command = ["git", "-C", str(REPOSITORY), "describe", "--always", "--dirty", "--exclude=*"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return __version__
    return f"{__version__}+{found}"
