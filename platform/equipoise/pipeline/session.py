"""What the stages of one run share, and the clock of the node it runs on."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from equipoise import __version__, hardware
from equipoise.config import RunConfig
from equipoise.costs.ledger_writer import LedgerWriter
from equipoise.costs.price_book import PriceBook, load_prices
from equipoise.errors import RunFolderError
from equipoise.pipeline.display import Display
from equipoise.pipeline.metered_node import PIPELINE, metered_node
from equipoise.runs import RunFolder


@dataclass
class Session:
    """One try at a run; `ray_metrics_url` and `board` (the progress board) are set once Ray is up."""

    config: RunConfig
    run: RunFolder
    display: Display
    prices: PriceBook
    ledger: LedgerWriter
    revision: str
    cores: int
    ray_metrics_url: str | None = None
    board: Any = None

    @property
    def root(self) -> Path:
        """The run folder on the local disk."""
        return self.run.local()


@contextlib.contextmanager
def open_session(config: RunConfig, run: RunFolder, display: Display) -> Iterator[Session]:
    """Lock the folder, bind it to the config, and meter the node until the end.

    Raises:
        RunFolderError: another process runs there, or the folder belongs to another config.
    """
    prices = load_prices(config.cost)
    root = run.local()
    lock = FileLock(str(root / ".lock"))
    try:
        root.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        raise RunFolderError(
            "another process runs in this folder", where=str(root), remedy="wait for it, or use --out"
        ) from None
    except OSError as error:
        raise RunFolderError(
            f"cannot be written to: {error.strerror}",
            where=str(root),
            remedy="choose another folder with --out",
        ) from error
    try:
        run.claim(config.model_dump(mode="json"), changeable=_changeable(run))
        _sweep(root)
        node = config.cost.training_node or config.cost.node
        cores = len(hardware.usable_cores())
        with metered_node(run, config, node, PIPELINE), LedgerWriter(run, config, "driver") as ledger:
            yield Session(config, run, display, prices, ledger, _revision(), cores)
    finally:
        lock.release()


_LIMITS = ("trials", "time_limit_s", "max_usd", "window", "min_gain")
"""How much is searched, not what is searched: a search may be given more and go on."""


def _sweep(root: Path) -> None:
    """Remove what a killed try left half-written; under the lock nobody else writes here."""
    for path in sorted(root.rglob(".tmp-*")):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _changeable(run: RunFolder) -> set[str]:
    """Sections and keys of the config that no finished stage of the run depends on."""
    found = {"output", "cluster"}
    if not run.has("served.json"):
        found.add("serving")
    if not (run.has("choice.json") and run.read("choice.json")["feasible"]):
        found |= {"constraints", *(f"search.{key}" for key in _LIMITS)}
    return found


def _revision() -> str:
    """Version, and the commit where this is a checkout."""
    try:
        commit = subprocess.run(  # noqa: S603 - fixed words
            ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"],  # noqa: S607
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return __version__
    return f"{__version__}+{commit}"
