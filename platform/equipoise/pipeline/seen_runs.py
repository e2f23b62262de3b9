"""What finished runs took, and where the runs of this hardware are remembered."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from equipoise import hardware, storage
from equipoise.config import RunConfig
from equipoise.config.load import validate_config
from equipoise.costs.estimate import RunEstimate, RunSize, SeenRun
from equipoise.costs.ledger import read_ledger
from equipoise.errors import InputError
from equipoise.runs import LedgerLine, RunFolder
from equipoise.training.deepspeed_config import resolve_precision, resolve_workers


def run_kind(config: RunConfig) -> str:
    """What two runs must have in common for their rates to be comparable."""
    return " ".join(
        [
            config.task,
            config.model.teacher,
            str(config.model.max_length),
            resolve_precision(config.training),
            f"{resolve_workers(config.training)} workers",
            *(["guided"] if config.distillation.guided else []),
        ]
    )


def judged_rows(config: RunConfig, validation_rows: int, train_rows: int, *, timed: bool = True) -> float:
    """Rows that a candidate answers: validation, corruptions, the gap, agreement, and where it is `timed`."""
    settings = config.measurement
    corrupted = min(settings.robustness_rows or validation_rows, validation_rows)
    gap = min(settings.gap_rows or train_rows, train_rows)
    agreement = min(settings.agreement_rows, validation_rows) * 2
    speed = settings.latency_requests + settings.throughput_batches * config.serving.max_batch_size
    judged = validation_rows + corrupted * (settings.corruptions_per_row or 12) + gap + agreement
    return judged + (speed if timed else 0)


def cache_folder(fingerprint: str) -> Path:
    """Where the runs of a hardware fingerprint are remembered."""
    return storage.user_cache("seen-runs") / fingerprint


def observe(run: RunFolder) -> SeenRun | None:
    """What a finished run took, from its records; None where they do not tell.

    Raises:
        InputError: its config or ledger cannot be read.
    """
    if not (run.has("test.json") and run.has("teacher", "trained.json")):
        return None
    config = validate_config(RunConfig, run.read("config.json"), where=run.path("config.json"))
    trained, splits = run.read("teacher", "trained.json"), run.read("data.json")["splits"]
    rows, validation = splits["train"]["rows"], splits["validation"]["rows"]
    students = [
        run.read("students", name)
        for name in storage.list_files(run.path("students"))
        if name.endswith("/trained.json")
    ]
    candidates = run.candidates()
    depths = tuple({c.recipe.structure: c.recipe.depth for c in candidates if c.recipe.distilled}.values())
    teacher = next((c for c in candidates if c.is_teacher), None)
    if teacher is None or "loop_s" not in trained or len(students) != len(depths):
        return None
    cores = int(teacher.hardware["cores"])
    lines = [line for line in read_ledger(run) if line.unit == "core-seconds" or line.kind == "node"]
    told = [
        line.quantity
        for line in lines
        if line.detail.startswith("teacher outputs") or line.resource_id.startswith("teacher/states/")
    ]
    outputs = sum(told) / cores
    nodes = [line for line in lines if line.kind == "node" and line.component == "pipeline"]
    elapsed = sum(line.quantity for line in nodes)
    seconds = {
        "teacher": float(trained["seconds"]),
        "outputs": outputs,
        "students": math.fsum(student["seconds"] for student in students),
        "candidates": math.fsum(
            c.seconds.get(phase, 0.0) for c in candidates for phase in ("export", "quality", "speed")
        ),
    }
    seconds["rest"] = max(elapsed - math.fsum(seconds.values()), 0.0)
    return SeenRun(
        run=run.location,
        kind=run_kind(config),
        fingerprint=str(teacher.hardware.get("fingerprint", "")),
        size=RunSize(
            teacher_rows=rows * config.training.epochs,
            teacher_depth=teacher.recipe.depth,
            output_rows=rows + validation,
            student_rows=rows * config.distillation.epochs,
            student_depths=depths,
            candidates=len(candidates),
            judged_rows=judged_rows(config, validation, rows),
            workers=int(trained["workers"]),
            cores=cores,
            row_tokens=float(trained["tokens_per_s"]) / float(trained["rows_per_s"]),
            batch_size=config.training.batch_size,
        ),
        seconds=seconds,
        start_s=_start_s(trained),
        student_start_s=math.fsum(map(_start_s, students)) / max(len(students), 1),
        estimated_s=_estimated_s(run),
        tries=_tries(run, nodes),
    )


def remember(seen: SeenRun) -> str:
    """Keep what a run took for the next estimate on its hardware; returns where."""
    name = hashlib.sha256(seen.run.encode()).hexdigest()[:12]
    location = str(cache_folder(seen.fingerprint) / f"{name}.json")
    storage.put_json(location, seen.model_dump(mode="json"))
    return location


def find_seen(config: RunConfig, beside: str | None = None) -> list[SeenRun]:
    """Comparable runs on this hardware: those remembered, and the run folders beside `beside`.

    A damaged or older record is no evidence and is passed over, and so is a run of several tries.
    """
    fingerprint, kind = hardware.fingerprint(hardware.describe_hardware()), run_kind(config)
    found: dict[str, SeenRun] = {}
    for folder in _neighbours(beside):
        try:
            seen = observe(RunFolder(folder))
        except (InputError, KeyError, TypeError, ValueError):
            continue
        if seen is not None:
            found[seen.run] = seen
    remembered = str(cache_folder(fingerprint))
    for name in storage.list_files(remembered):
        try:
            seen = SeenRun.model_validate(storage.read_json(f"{remembered}/{name}"))
        except (InputError, ValidationError):
            continue
        found.setdefault(seen.run, seen)
    wanted = (fingerprint, kind, 1)
    return [seen for seen in found.values() if (seen.fingerprint, seen.kind, seen.tries) == wanted]


def _tries(run: RunFolder, nodes: list[LedgerLine]) -> int:
    """Times that a run was started until it was finished; asked for once more, it does nothing."""
    if run.has("actual.json"):
        return int(run.read("actual.json").get("tries", 1))
    # Each try has a writer of its own for its nodes; what closes the books of a killed one has another.
    return len({line.writer for line in nodes if line.writer.startswith("node-")}) or 1


def _start_s(trained: dict[str, Any]) -> float:
    return max(float(trained["seconds"]) - float(trained["loop_s"]), 0.0)


def _neighbours(beside: str | None) -> list[Path]:
    if beside is None or storage.is_uri(beside):
        return []
    parent = Path(beside).absolute().parent
    return [folder for folder in sorted(parent.glob("*")) if (folder / "config.json").is_file()]


def _estimated_s(run: RunFolder) -> float | None:
    if not run.has("estimate.json"):
        return None
    record: dict[str, Any] = run.read("estimate.json")
    return RunEstimate.model_validate(record).total_s.value
