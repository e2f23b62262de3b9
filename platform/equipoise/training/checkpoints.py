"""Checkpoints of a training under way: each put whole, the one before kept until the next stands."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path

from equipoise import storage

_KEPT = 2


class CheckpointStore:
    """Folders `step-NNNNNNNN`, named by the steps that were done.

    A folder takes its name only when everything in it is on the disk, so each that is there is whole.

    Args:
        folder: on a file system that all workers see.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def at(self, step: int) -> Path:
        """The folder of a checkpoint."""
        return self.folder / f"step-{step:08d}"

    def latest(self) -> int | None:
        """Steps done at the newest checkpoint; None where there is none."""
        steps = self._steps()
        return steps[-1] if steps else None

    def put(self, step: int, fill: Callable[[Path], None]) -> None:
        """Write one, then remove all but the newest two.

        Raises:
            StorageError: the disk is full; the older ones stay.
        """
        storage.write_folder(self.at(step), fill)
        for old in self._steps()[:-_KEPT]:
            shutil.rmtree(self.at(old), ignore_errors=True)

    def _steps(self) -> list[int]:
        return sorted(int(path.name.removeprefix("step-")) for path in self.folder.glob("step-*"))


class Timetable:
    """When the next checkpoint is due."""

    def __init__(self, every_steps: int | None, every_s: float | None) -> None:
        self.every_steps, self.every_s = every_steps, every_s
        self._last_s = time.monotonic()

    def due(self, step: int) -> bool:
        """Whether one should be written once `step` steps are done."""
        if self.every_steps is not None and step % self.every_steps == 0:
            return True
        return self.every_s is not None and time.monotonic() - self._last_s >= self.every_s

    def done(self) -> None:
        """Count the seconds from now."""
        self._last_s = time.monotonic()
