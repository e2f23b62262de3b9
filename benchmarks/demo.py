"""The demo's figures, out of its run folder: the choice against its own teacher, in one run.

A folder that is finished is only read. Otherwise the demo runs into it first, and the memory of its
process tree is sampled meanwhile.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

import psutil  # type: ignore[import-untyped]
from benchmarks.record import Measured, Provenance, write_result

from equipoise.cli.shipped import shipped_config
from equipoise.config import load_config
from equipoise.costs.ledger import read_ledger
from equipoise.errors import EquipoiseError
from equipoise.pipeline.summary import summarize
from equipoise.runs import RunFolder

_SAMPLE_S = 0.5


def main(arguments: Sequence[str] | None = None) -> None:
    """Read or run the demo, write `results/demo.json` and print its path."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.demo", description=__doc__)
    parser.add_argument("--run", default="runs/demo", help="run folder of the demo (default: %(default)s)")
    folder: str = parser.parse_args(arguments).run
    try:
        run = RunFolder(folder)
        peak_gib = None if is_finished(run) else run_demo(folder)
        figures = demo_figures(summarize(run), peak_gib)
        print(write_result("demo", f"python -m benchmarks.demo --run {folder}", figures, run_provenance(run)))
    except EquipoiseError as error:
        sys.exit(f"benchmarks.demo: {error}")


def is_finished(run: RunFolder) -> bool:
    """Whether the demo, as it ships, ended here.

    Raises:
        RunFolderError: the folder belongs to a run with another config.
    """
    if not run.has("config.json"):
        return False
    run.claim(load_config(shipped_config("demo")).model_dump(mode="json"))
    return run.has("served.json") and run.has("report.html")


def run_demo(folder: str) -> float:
    """Run the demo to its end; returns the peak memory of its process tree in GiB."""
    process = subprocess.Popen([sys.executable, "-m", "equipoise.cli.main", "demo", "--out", folder])
    peak_bytes = 0
    try:
        while process.poll() is None:
            peak_bytes = max(peak_bytes, tree_bytes(process.pid))
            time.sleep(_SAMPLE_S)
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()
    if process.returncode:
        sys.exit(process.returncode)
    return peak_bytes / 2**30


def tree_bytes(root: int) -> int:
    """Resident bytes of a process and all below it; pages that they share count once in each."""
    total = 0
    try:
        parent = psutil.Process(root)
        members = [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0
    for member in members:
        try:
            total += member.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total


def demo_figures(summary: dict[str, Any], peak_gib: float | None = None) -> list[Measured]:
    """The figures of a finished run's summary, each against its goal.

    Args:
        summary: what `equipoise show --json` prints.
        peak_gib: peak memory, where this benchmark ran the demo.
    """
    choice, served = summary["choice"], summary["served"]
    figures = [
        Measured("candidates measured", summary["candidates"], 12, "higher"),
        Measured("structures", summary["structures"], 3, "higher"),
        Measured("engines", len(summary["engines"]), 3, "higher"),
        Measured("candidates on the frontier", summary["frontier"], 4, "higher"),
        Measured("serving cost, choice over teacher", choice["cost_ratio"], 0.125, "lower"),
        Measured("metric drop on test", choice["metric_drop"], 0.01, "lower"),
        Measured("served labels equal to the bundle's", served["agreement"], 0.999, "higher"),
        Measured("teacher replicas at the declared rate", choice["teacher_replicas"], 12, "higher"),
        Measured("minutes from start to report", summary["elapsed_s"] / 60, 10, "lower"),
    ]
    if peak_gib is not None:
        figures.append(Measured("peak memory of all processes, GiB", peak_gib, 8, "lower"))
    return figures


def run_provenance(run: RunFolder) -> Provenance:
    """Machine and revision of the run's teacher candidate, and the end of its last node period."""
    teacher = next(candidate for candidate in run.candidates() if candidate.is_teacher)
    date = max(line.period_end for line in read_ledger(run) if line.kind == "node")
    return Provenance(teacher.hardware, date, teacher.revision)


if __name__ == "__main__":
    main()
