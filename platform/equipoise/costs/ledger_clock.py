"""The ledger's clock: seconds since the epoch that never go back, one and the same in all processes.

The wall clock of a machine may be set back or forward while a run is at work. So the first process
notes once how far the epoch lies from the machine's boot clock, which nobody sets, and the processes
it starts inherit the note: their periods stay as long as they were, and stay beside each other.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

VARIABLE = "EQUIPOISE_CLOCK"
"""Environment variable that carries `<boot id> <epoch seconds at boot>` to child processes."""

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_BOOT_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def now() -> float:
    """Seconds since the epoch, by the boot clock and the note of the first process."""
    return _epoch_at_boot() + time.clock_gettime(_BOOT_CLOCK)


def _epoch_at_boot() -> float:
    boot = _boot_id()
    held, _, offset = os.environ.get(VARIABLE, "").partition(" ")
    if held == boot:
        try:
            return float(offset)
        except ValueError:
            pass  # Not a note of ours: write a new one.
    found = time.time() - time.clock_gettime(_BOOT_CLOCK)
    os.environ[VARIABLE] = f"{boot} {found!r}"
    return found


def _boot_id() -> str:
    """Names this boot of this machine; another machine's note does not count here."""
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return "unknown"
