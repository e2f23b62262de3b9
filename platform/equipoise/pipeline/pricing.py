"""Pricing stored candidates: the same formula for the choice, `equipoise cost` and `equipoise rerank`."""

from __future__ import annotations

from equipoise.config.cost import CostConfig
from equipoise.config.search import ConstraintsConfig
from equipoise.costs.capacity import plan_capacity
from equipoise.costs.ledger import read_ledger
from equipoise.costs.lifecycle import price_candidate
from equipoise.costs.price_book import PriceBook
from equipoise.costs.profiles import TrafficProfile
from equipoise.runs import Candidate, RunFolder
from equipoise.runs.records import Record


class RunWork(Record):
    """`work.json`: what a run took that its candidates are charged with."""

    teacher_core_s: float
    """Core-seconds of fine-tuning the teacher once: what a retraining takes."""
    trained_core_s: float | None = None
    """Core-seconds of all that the ledger calls training: the teacher with its outputs, killed tries and a
    learning curve too. None in a run of an earlier version, which charged `teacher_core_s`."""
    searched_core_s: float
    """Core-seconds of the whole search."""
    workers: int
    """Training workers, one a core."""
    labelled_rows: int


def put_work(run: RunFolder) -> RunWork:
    """Add up the work of a finished search, and put it as `work.json`.

    Raises:
        RunFolderError: the run did not get that far.
        InputError: its ledger is damaged.
    """
    work = _add_up(run)
    run.put(work.model_dump(mode="json"), "work.json")
    return work


def read_work(run: RunFolder) -> RunWork:
    """The work of a run: what its choice was priced with, or what its records hold so far.

    Raises:
        RunFolderError: the run did not get that far.
        InputError: its ledger is damaged.
    """
    if run.has("work.json"):
        return RunWork.model_validate(run.read("work.json"))
    return _add_up(run)


def _add_up(run: RunFolder) -> RunWork:
    trained = run.read("teacher", "trained.json")
    splits = run.read("data.json")["splits"]
    spent = {"training": 0.0, "search": 0.0}
    for line in read_ledger(run):
        if (line.kind, line.unit) == ("usage", "core-seconds") and line.component in spent:
            spent[line.component] += line.quantity
    return RunWork(
        teacher_core_s=trained["seconds"] * trained["workers"],
        trained_core_s=spent["training"],
        searched_core_s=spent["search"],
        workers=trained["workers"],
        labelled_rows=splits["train"]["rows"] + splits["validation"]["rows"],
    )


def price_again(
    candidate: Candidate,
    work: RunWork,
    cost: CostConfig,
    book: PriceBook,
    profile: TrafficProfile | None = None,
) -> Candidate:
    """A measured candidate at these prices and this traffic.

    The whole search is charged to whatever comes out of it, and nothing to keeping the teacher.

    Raises:
        ConfigError: a node is not in the price book, or a replica does not fit on it.
    """
    # A student's own distillation is part of the search's lines; it is not paid twice.
    priced = price_candidate(
        cost=cost,
        book=book,
        throughput_rps=candidate.speed.throughput_rps.value,
        capacity=plan_capacity(candidate.speed, cost),
        profile=profile,
        stored_bytes=candidate.bytes,
        training_core_seconds=work.teacher_core_s if work.trained_core_s is None else work.trained_core_s,
        retraining_core_seconds=work.teacher_core_s + candidate.seconds["train"] * work.workers,
        search_core_seconds=0.0 if candidate.is_teacher else work.searched_core_s,
        labelled_rows=work.labelled_rows,
    )
    return candidate.model_copy(update={"cost": priced})


def binding_constraints(constraints: ConstraintsConfig, cost: CostConfig) -> ConstraintsConfig:
    """The constraints, with a latency no larger than the objective under load: a model that alone takes
    longer cannot keep it."""
    bounds = [bound for bound in (constraints.p99_ms, cost.p99_ms) if bound is not None]
    return constraints.model_copy(update={"p99_ms": min(bounds, default=None)})
