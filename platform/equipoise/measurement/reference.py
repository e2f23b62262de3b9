"""A work of known size, done beside what is measured: how much slower the machine is than when it is calm.

What runs on the other cores takes memory bandwidth and cache from the one that measures; a model then
takes longer by as much as it depends on them. The reference sums a buffer as large as the model's weights,
for that is what a request reads: it stays in the same caches as the model, or falls out of them with it.
"""

from __future__ import annotations

import numpy as np
from filelock import FileLock, Timeout

from equipoise import hardware, storage
from equipoise.errors import InputError
from equipoise.measurement.stopwatch import Stopwatch

_SMALLEST, _LARGEST = 2**17, 2**25
_TAKE_BYTES = 2**23
"""Read in one take at least: 0.3 ms at 25 GB/s."""
_CALM_PERCENTILE = 10
_LOCK_TIMEOUT_S = 10.0


class Reference:
    """Sums a buffer whose bytes are a model's, rounded down to a power of four from 128 KiB to 32 MiB."""

    def __init__(self, model_bytes: int) -> None:
        size = _SMALLEST
        while size * 4 <= min(model_bytes, _LARGEST):
            size *= 4
        self.size_bytes = size
        self._buffer = np.ones(size // 4, dtype=np.float32)
        self._times = max(1, _TAKE_BYTES // size)
        self._sum()

    def take(self, stopwatch: Stopwatch) -> float:
        """Own seconds of the work, done once."""
        return stopwatch.time(self._sum).own_s

    def calm_s(self, taken_s: list[float]) -> float:
        """Seconds of the work on this machine when it is calm: the fastest decile ever seen, these included.

        It is kept in the user's cache by hardware fingerprint. A machine that was never calm is taken for
        one that always is as it was at its best.
        """
        seen = float(np.percentile(taken_s, _CALM_PERCENTILE))
        fingerprint = hardware.fingerprint(hardware.describe_hardware())
        try:
            file = storage.user_cache("calm") / f"{fingerprint}-{self.size_bytes}.json"
            file.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{file}.lock", timeout=_LOCK_TIMEOUT_S):
                held = float(storage.read_json(str(file))) if file.is_file() else seen
                if seen < held or not file.is_file():
                    storage.put_json(str(file), seen)
        except (OSError, Timeout, InputError):
            return seen  # a cache that cannot be used changes no measurement's right to end
        return min(held, seen)

    def _sum(self) -> None:
        for _ in range(self._times):
            self._buffer.sum()
