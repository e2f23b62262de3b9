"""Peak resident memory of one program."""

from __future__ import annotations

import re
from pathlib import Path


def peak_mib(pid: int | str = "self") -> float:
    """Peak resident memory of a process in MiB; 0 where it has just ended.

    `getrusage` would give the peak of whoever started it where that is larger: Linux keeps it over exec.
    """
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    except OSError:
        return 0.0
    found = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    return int(found[1]) / 1024 if found else 0.0
