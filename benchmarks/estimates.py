"""Estimate against actual over finished run folders: by stage and in all, as the runs themselves recorded it.

    python -m benchmarks.estimates runs/demo runs/mine

A run records what it took beside its estimate (`actual.json`). Where a run had no estimate, it is estimated
from the other folders given here that are of its kind and hardware, as `equipoise estimate` would have.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from dataclasses import dataclass

from benchmarks.record import Measured, measured_here_and_now, write_result

from equipoise.config import RunConfig, validate_config
from equipoise.costs.estimate import STAGES, SeenRun, estimate_run
from equipoise.costs.price_book import load_prices, replica_usd_per_hour
from equipoise.pipeline.seen_runs import observe
from equipoise.runs import Candidate, RunFolder

GOAL, SERVING_GOAL = 0.2, 0.1
_TITLES = {
    "teacher": "fine-tuning",
    "outputs": "cached outputs",
    "students": "distillation",
    "candidates": "export, judging, timing",
    "rest": "the rest",
}


@dataclass(frozen=True)
class Held:
    """Seconds of one run by stage: estimated and actual."""

    run: str
    basis: str
    stages: dict[str, tuple[float, float]]
    within_range: bool

    def error(self, *stages: str) -> float:
        """Actual over estimated, minus 1, of some stages together."""
        estimated, actual = (sum(self.stages[stage][side] for stage in stages) for side in (0, 1))
        return actual / estimated - 1


def main() -> None:
    """Print a line a run and stage, write `results/estimates.json` and print its path."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.estimates", description=__doc__)
    parser.add_argument("runs", nargs="+", help="finished run folders")
    folders = [RunFolder(location) for location in parser.parse_args().runs]
    seen = {folder.location: found for folder in folders if (found := observe(folder)) is not None}
    held = [one for folder in folders if (one := hold(folder, seen)) is not None]
    if not held:
        sys.exit("benchmarks.estimates: no run has an estimate, nor another of its kind beside it")
    for one in held:
        sys.stdout.write(f"{one.run}, from {one.basis}: {one.error(*STAGES):+.0%} in all\n")
        for stage, (estimated, actual) in one.stages.items():
            sys.stdout.write(f"  {_TITLES[stage]:<26}{estimated:8.0f} s estimated {actual:8.0f} s taken\n")
    figures = [
        Measured("largest error of training and search", largest(held, STAGES[:-1]), GOAL, "lower"),
        Measured("largest error of a whole run", largest(held, STAGES), GOAL, "lower"),
        Measured(
            "share of runs within the range", statistics.mean(h.within_range for h in held), 1, "higher"
        ),
    ]
    served = [off for folder in folders if (off := serving_error(folder)) is not None]
    if served:
        name = "largest error of a replica's throughput, metered while serving"
        figures.append(Measured(name, max(map(abs, served)), SERVING_GOAL, "lower"))
    command = f"python -m benchmarks.estimates {' '.join(folder.location for folder in folders)}"
    print(write_result("estimates", command, figures, measured_here_and_now()))


def largest(held: list[Held], stages: tuple[str, ...]) -> float:
    """Of the runs' errors, in size."""
    return max(abs(one.error(*stages)) for one in held)


def hold(folder: RunFolder, seen: dict[str, SeenRun]) -> Held | None:
    """A run beside its estimate; None where there is none and no other run that one could rest on."""
    took = folder.read("actual.json") if folder.has("actual.json") else {}
    if took.get("basis"):
        stages = {name: (stage["estimated_s"], stage["actual_s"]) for name, stage in took["stages"].items()}
        return Held(folder.location, took["basis"], stages, took["within_range"])
    own = seen.get(folder.location)
    others = [
        run
        for location, run in seen.items()
        if own and location != folder.location and (run.kind, run.fingerprint) == (own.kind, own.fingerprint)
    ]
    if own is None or not others:
        return None
    found = estimate_run(
        own.size, others, fingerprint=own.fingerprint, core_second_usd=0.0, node_usd_per_hour=0.0
    )
    stages = {stage: (found.seconds[stage].value, own.seconds[stage]) for stage in STAGES}
    within = found.total_s.low <= own.total_s <= found.total_s.high
    return Held(folder.location, f"{len(others)} of the others", stages, within)


def serving_error(folder: RunFolder) -> float | None:
    """Throughput of the choice's replica by its metered busy time, over the measured one, minus 1.

    Read back from dollars per 1,000 requests, so exact to a whole replica; None where nothing was served.
    """
    if not folder.has("served.json"):
        return None
    config = validate_config(RunConfig, folder.read("config.json"), where=folder.path("config.json"))
    name = folder.read("choice.json")["recipe_hash"]
    choice = Candidate.model_validate(folder.read("candidates", f"{name}.json"))
    each = replica_usd_per_hour(load_prices(config.cost), config.cost)
    metered = folder.read("served.json")["usd_per_1k"] * config.cost.rps * 3.6 / each
    return float(choice.cost.mean_replicas / metered - 1)


if __name__ == "__main__":
    main()
