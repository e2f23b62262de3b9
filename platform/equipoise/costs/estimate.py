"""Seconds and dollars of a run before it starts, from runs that were seen on the same hardware."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from equipoise.errors import EquipoiseError
from equipoise.runs.records import Record

STAGES = ("teacher", "outputs", "students", "candidates", "rest")
"""Fine-tuning; the teacher's cached outputs; distillations; export, judging and timing; all else."""

_LEAST_SPREAD = 0.15
"""Half-width of a range, as a share, however well earlier estimates met."""
_ONE_RUN_SPREAD = 0.25
_TIMED_SPREAD = 0.5
"""Half-width where nothing but a few steps of each stage was seen."""
_CANDIDATE_S = 8.0
"""Seconds of a candidate that do not grow with its rows (export, opening); at most half of what was seen."""
_STEP_TOKENS = 800
"""A training step beside its tokens (optimizer, exchange, calls), in tokens: all-MiniLM-L6-v2 in bf16
by two workers on two cores took 371 ms a step of 863 tokens, and 257 ms a step of 353."""


class RunSize(Record):
    """What a config asks for."""

    teacher_rows: float
    """Training rows times epochs."""
    teacher_depth: int
    output_rows: float
    """Rows that the teacher's outputs are cached of."""
    student_rows: float
    """Training rows times epochs of one distillation."""
    student_depths: tuple[int, ...]
    """Of the structures to distil."""
    candidates: int
    judged_rows: float
    """Rows that each candidate answers while it is judged and timed."""
    workers: int
    cores: int
    row_tokens: float = 0.0
    """Mean length of a training row in the task's unit; 0 in records of before it was kept."""
    batch_size: int = 1
    """Training rows of a step."""


class SeenRun(Record):
    """What a finished run took, or would have taken by a few timed steps."""

    run: str
    timed: bool = False
    """Whether its seconds were reckoned from steps of every stage, and no such run was."""
    kind: str
    """Task, base model, longest input, precision and workers: what makes rates comparable."""
    fingerprint: str
    size: RunSize
    seconds: dict[str, float]
    """By stage."""
    start_s: float
    """Of starting the teacher's training, in the seconds of `teacher`."""
    student_start_s: float
    """Of starting one distillation, in those of `students`; the first job of a machine may also build."""
    estimated_s: float | None = None
    """What the whole run had been estimated at."""
    tries: int = 1
    """Times that it was started; what a killed try did again is in its seconds, and nobody's estimate."""

    @property
    def total_s(self) -> float:
        """All stages."""
        return math.fsum(self.seconds.values())

    @property
    def error(self) -> float | None:
        """Actual seconds over estimated ones, minus 1."""
        return None if not self.estimated_s else self.total_s / self.estimated_s - 1


class Range(Record):
    """A value with the range it is expected in."""

    value: float
    low: float
    high: float


class RunEstimate(Record):
    """`estimate.json`: seconds by stage, and dollars at the training node's price."""

    basis: str
    """`earlier runs` or `timed steps`."""
    runs: int
    """Earlier runs that it rests on."""
    fingerprint: str
    size: RunSize
    seconds: dict[str, Range]
    total_s: Range
    training_usd: Range
    search_usd: Range
    node_usd: Range
    """The whole node for the whole time, idle cores included."""


def estimate_run(
    size: RunSize,
    seen: Sequence[SeenRun],
    *,
    fingerprint: str,
    core_second_usd: float,
    node_usd_per_hour: float,
) -> RunEstimate:
    """Scale what was seen to a run's size; several runs are averaged, and widen the range by their spread.

    Args:
        size: the run to come.
        seen: comparable runs on the same hardware, or one record of timed steps.
        fingerprint: the hardware.
        core_second_usd: dollars of a core-second of the training node.
        node_usd_per_hour: dollars an hour of the whole node.

    Raises:
        EquipoiseError: nothing was seen.
    """
    if not seen:
        raise EquipoiseError("an estimate needs a run or a few steps to rest on")
    scaled = [scaled_seconds(size, run) for run in seen]
    timed = any(run.timed for run in seen)
    errors = [run.error for run in seen if run.error is not None]
    spread = _spread(scaled, errors, timed)
    means = {stage: float(np.mean([found[stage] for found in scaled])) for stage in STAGES}
    search_s = means["students"] * size.workers + means["candidates"] * size.cores
    training_s = means["teacher"] * size.workers + means["outputs"] * size.cores
    total = math.fsum(means.values())
    return RunEstimate(
        basis="timed steps" if timed else "earlier runs",
        runs=0 if timed else len(seen),
        fingerprint=fingerprint,
        size=size,
        seconds={stage: _range(value, spread) for stage, value in means.items()},
        total_s=_range(total, spread),
        training_usd=_range(training_s * core_second_usd, spread),
        search_usd=_range(search_s * core_second_usd, spread),
        node_usd=_range(total * node_usd_per_hour / 3600, spread),
    )


def scaled_seconds(size: RunSize, run: SeenRun) -> dict[str, float]:
    """Seconds by stage of a run of `size`, had it gone as `run` did.

    Training grows with rows times epochs beyond its start, and with their length; distillation with the
    depth too, a candidate with the rows it answers; the rest is taken as it was.
    """
    was = run.size
    longer = _row_cost(size) / _row_cost(was) if size.row_tokens and was.row_tokens else 1.0
    row_s = max(run.seconds["teacher"] - run.start_s, 0.0) / was.teacher_rows
    return {
        "teacher": run.start_s + longer * size.teacher_rows * row_s,
        "outputs": longer * size.output_rows * run.seconds["outputs"] / was.output_rows,
        "students": len(size.student_depths) * run.student_start_s
        + longer * sum(size.student_depths) * size.student_rows * _layer_row_s(run, row_s),
        "candidates": size.candidates * _candidate_s(size, run),
        "rest": run.seconds["rest"],
    }


def _candidate_s(size: RunSize, run: SeenRun) -> float:
    """Seconds of exporting, judging and timing one candidate."""
    each = run.seconds["candidates"] / run.size.candidates
    fixed = min(_CANDIDATE_S, each / 2)
    return fixed + (each - fixed) * size.judged_rows / run.size.judged_rows


def _row_cost(size: RunSize) -> float:
    """Of a training row, in tokens."""
    return size.row_tokens + _STEP_TOKENS / size.batch_size


def _layer_row_s(run: SeenRun, row_s: float) -> float:
    """Seconds of one layer on one row of a distillation; `row_s` is the teacher's on a row."""
    was = run.size
    layers = sum(was.student_depths)
    if not layers:
        return row_s / was.teacher_depth
    looped = run.seconds["students"] - len(was.student_depths) * run.student_start_s
    return max(looped, 0.0) / (layers * was.student_rows)


def _spread(scaled: Sequence[dict[str, float]], errors: Sequence[float], timed: bool) -> float:
    if timed:
        return _TIMED_SPREAD
    totals = np.array([math.fsum(found.values()) for found in scaled])
    between = 2 * float(totals.std()) / float(totals.mean()) if len(totals) > 1 else _ONE_RUN_SPREAD
    missed = 2 * float(np.sqrt(np.mean(np.square(errors)))) if errors else 0.0
    return max(_LEAST_SPREAD, between, missed)


def _range(value: float, spread: float) -> Range:
    return Range(value=value, low=value * max(1 - spread, 0.0), high=value * (1 + spread))
