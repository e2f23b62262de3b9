"""Memory that a model takes beyond what its process held before."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_RESET_PEAK = "5"


@dataclass(slots=True)
class Footprint:
    """Filled when the block that measures it ends."""

    peak_bytes: int | None = None
    """Resident memory at its peak less that at the start; None where the system does not tell."""


@contextlib.contextmanager
def measured_footprint() -> Iterator[Footprint]:
    """Measure the peak of resident memory over a block, in a process that runs nothing else.

    The process should be new: memory that an earlier model gave back to the allocator, and libraries that
    it brought in, would be missing from the figure.
    """
    found = Footprint()
    before = None
    with contextlib.suppress(OSError):
        _CLEAR.write_text(_RESET_PEAK)  # otherwise the peak is the process's, from its birth
        before = _status_bytes("VmRSS")
    yield found
    if before is not None and (peak := _status_bytes("VmHWM")) is not None:
        found.peak_bytes = max(0, peak - before)


def _status_bytes(name: str) -> int | None:
    for line in _STATUS.read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    return None
