"""Time that is a call's own: without the time that its thread stood in line for a core."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

_COUNTS = Path("/proc/thread-self/schedstat")
_WAITED_FIELD = 1
"""Nanoseconds spent runnable, and not running."""


@dataclass(frozen=True, slots=True)
class Lap:
    """What one call took."""

    wall_s: float
    own_s: float
    """The wall time less the wait for a core, and never below the thread's CPU time."""


class Stopwatch:
    """Times calls of the thread that opened it.

    A thread that shares its core with another process waits for it in between, and a wall clock puts the
    other's work down to it. Linux counts that wait (the kernel's sched-stats). Where it is not counted, a
    lap's own time is its wall time. Engines on one thread run in the thread that calls them.
    """

    def __init__(self, file: int | None) -> None:
        self._file = file

    def time(self, call: Callable[[], object]) -> Lap:
        """Call, and what that took."""
        waited_ns = self._waited_ns()
        cpu_s = time.thread_time()
        start = time.perf_counter()
        call()
        wall_s = time.perf_counter() - start
        cpu_s = time.thread_time() - cpu_s
        waited_s = (self._waited_ns() - waited_ns) / 1e9
        # A wait between two of these readings may be counted outside of the wall time.
        return Lap(wall_s, min(wall_s, max(cpu_s, wall_s - waited_s)))

    def _waited_ns(self) -> int:
        return 0 if self._file is None else int(os.pread(self._file, 96, 0).split()[_WAITED_FIELD])


@contextlib.contextmanager
def opened_stopwatch() -> Iterator[Stopwatch]:
    """A stopwatch for this thread."""
    try:
        file = os.open(_COUNTS, os.O_RDONLY)
    except FileNotFoundError:
        yield Stopwatch(None)
        return
    try:
        yield Stopwatch(file)
    finally:
        os.close(file)
