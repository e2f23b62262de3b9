"""What a run found and decided, as far as its live figures are held against it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from equipoise.config import RunConfig, validate_config
from equipoise.costs.capacity import ReplicaCapacity, plan_capacity
from equipoise.costs.price_book import load_prices, replica_usd_per_hour
from equipoise.costs.serving_plan import HOURS_PER_MONTH
from equipoise.exporter.minutes import Minute
from equipoise.runs import Candidate, RunFolder


@dataclass(frozen=True)
class RunPlan:
    """Choice and teacher of a run, and the number of candidates on its frontier."""

    run: str
    frontier_size: int
    estimated_usd_per_1k: float
    """Of the choice, at the declared traffic."""
    planned_usd_per_hour: float
    """Of serving the choice."""
    teacher: ReplicaCapacity
    replica_usd_per_hour: float

    def saved_usd(self, minute: Minute) -> float:
        """What the teacher's replicas for a minute's requests would have cost, less what was billed."""
        served = minute.served.get(self.run)
        if served is None or served.seconds == 0:
            return 0.0
        replicas = int(self.teacher.replicas(np.array(served.requests / served.seconds)))
        return replicas * self.replica_usd_per_hour * served.seconds / 3600 - served.usd


def read_run_plan(run_location: str) -> RunPlan | None:
    """From the run folder's records; None before there is a choice.

    Raises:
        InputError: a record is damaged.
    """
    run = RunFolder(run_location)
    if not (run.has("choice.json") and run.has("frontier.json")):
        return None
    choice, frontier = run.read("choice.json"), run.read("frontier.json")
    if not choice["feasible"]:
        return None
    config = validate_config(RunConfig, run.read("config.json"), where=run.path("config.json"))
    chosen, teacher = (
        Candidate.model_validate(run.read("candidates", f"{choice[key]}.json"))
        for key in ("recipe_hash", "teacher_hash")
    )
    return RunPlan(
        run=config.name,
        frontier_size=len(frontier["members"]),
        estimated_usd_per_1k=chosen.cost.serving_usd_per_1k,
        planned_usd_per_hour=chosen.cost.serving_usd_month / HOURS_PER_MONTH,
        teacher=plan_capacity(teacher.speed, config.cost),
        replica_usd_per_hour=replica_usd_per_hour(load_prices(config.cost), config.cost),
    )
