"""What it costs to start the command line, and which heavy libraries that loads.

The module is started as `python -m equipoise.cli.main`: the same work as the `equipoise` script does.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence

from benchmarks.record import Measured, measured_here_and_now, write_result

HEAVY = ("torch", "ray", "transformers", "deepspeed", "kubernetes", "onnxruntime", "openvino")
RUNS = 7
HELP = (sys.executable, "-m", "equipoise.cli.main", "--help")


def main() -> None:
    """Measure, write `results/startup.json` and print its path."""
    cpu_seconds(HELP)  # Not counted: writes the byte code.
    figures = [
        Measured(
            "CPU seconds of `equipoise --help`",
            statistics.median(cpu_seconds(HELP) for _ in range(RUNS)),
            0.5,
            "lower",
        ),
        Measured("heavy modules behind `import equipoise`", len(heavy_modules("equipoise")), 0, "lower"),
        Measured(
            "heavy modules behind the command line", len(heavy_modules("equipoise.cli.main")), 0, "lower"
        ),
    ]
    print(write_result("startup", "python -m benchmarks.startup", figures, measured_here_and_now()))


def cpu_seconds(command: Sequence[str]) -> float:
    """User and system seconds of a process that must succeed, those of its finished children included."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    return usage.ru_utime + usage.ru_stime


def heavy_modules(imported: str) -> list[str]:
    """Which of `HEAVY` a fresh interpreter holds after one import."""
    check = f"import json, sys, {imported}; print(json.dumps([n for n in {HEAVY!r} if n in sys.modules]))"
    found = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    loaded: list[str] = json.loads(found.stdout)
    return loaded


if __name__ == "__main__":
    main()
