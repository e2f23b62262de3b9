"""What it takes to answer from a large search: a choice among 1,000 candidates, a frontier of 10,000."""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from benchmarks.record import Measured, measured_here_and_now, write_result
from benchmarks.replay import SEEDS, SHARE, median_trials, read_table
from benchmarks.startup import cpu_seconds
from benchmarks.synthetic_run import write_synthetic_run
from numpy.typing import NDArray

from equipoise.search.frontier import pareto_mask

CANDIDATES = 1_000
ROWS, OBJECTIVES = 10_000, 4
RUNS = 5


def main() -> None:
    """Measure, write `results/frontier.json` and print its path."""
    figures = [
        Measured(f"CPU seconds of `equipoise choose` over {CANDIDATES:,} candidates", choose_s(), 1, "lower"),
        Measured(
            f"CPU seconds of a frontier of {ROWS:,} random candidates in {OBJECTIVES} objectives",
            frontier_s(random_rows()),
            1,
            "lower",
        ),
        Measured(
            f"CPU seconds of a frontier of {ROWS:,} candidates none of which beats another",
            frontier_s(undominated_rows()),
            1,
            "lower",
        ),
    ]
    if table := read_table():
        searched, drawn = median_trials(table)
        name = f"trials to {SHARE:.0%} of the hypervolume, search over random, median of {SEEDS} seeds"
        figures.append(Measured(name, searched / drawn, 0.5, "lower"))
    print(write_result("frontier", "python -m benchmarks.frontier", figures, measured_here_and_now()))


def choose_s(candidates: int = CANDIDATES, runs: int = RUNS) -> float:
    """Median CPU seconds of the whole process, prices at another arrival rate included."""
    with tempfile.TemporaryDirectory() as folder:
        write_synthetic_run(Path(folder), candidates)
        command = (
            *(sys.executable, "-m", "equipoise.cli.main", "choose", folder),
            *("--max-drop", "3%", "--p99-ms", "30", "--max-usd-month", "5000", "--rps", "50"),
        )
        cpu_seconds(command)  # Not counted: writes the byte code.
        return statistics.median(cpu_seconds(command) for _ in range(runs))


def frontier_s(rows: NDArray[np.float64], runs: int = RUNS) -> float:
    """Median CPU seconds of the Pareto set of rows of losses."""
    found = []
    for _ in range(runs):
        start = time.process_time()
        pareto_mask(rows)
        found.append(time.process_time() - start)
    return statistics.median(found)


def random_rows(rows: int = ROWS) -> NDArray[np.float64]:
    """Losses drawn uniformly, shape (rows, OBJECTIVES)."""
    return np.random.default_rng(0).random((rows, OBJECTIVES))


def undominated_rows(rows: int = ROWS) -> NDArray[np.float64]:
    """Losses on a sphere around the worst point: no row dominates another; the most work there is."""
    drawn = np.abs(np.random.default_rng(0).normal(size=(rows, OBJECTIVES)))
    result: NDArray[np.float64] = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
    return result


if __name__ == "__main__":
    main()
