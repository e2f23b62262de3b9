"""`equipoise evaluate`: what a model is worth on any data, as the field reports it."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from equipoise import hardware
from equipoise.data import OUTSIDE, Rows, load_rows, stratified_sample, stratum
from equipoise.data.layout import is_empty, label_names
from equipoise.engines import Predictor
from equipoise.errors import DataError
from equipoise.measurement.bootstrap import draw_resamples, sums_figure
from equipoise.measurement.class_report import find_confusions, report_classes, report_entities, top_share
from equipoise.measurement.quality import find_truth, measure_quality
from equipoise.measurement.robustness import corrupt, measure_robustness
from equipoise.pipeline.job import DEFAULT_NODE, check_node, open_job
from equipoise.pipeline.opened_model import ModelSource, find_model
from equipoise.runs import RunFolder
from equipoise.tasks import Answers

RECORD = "evaluation.json"
_CONFUSIONS = 20
_TOP = 5
_CHUNK_ROWS = 512


@dataclass(frozen=True)
class EvaluationSettings:
    """How the data are read and how far they are measured."""

    text_column: str = "text"
    label_column: str = "label"
    prompt_column: str | None = None
    max_row_bytes: int = 262_144
    rows: int | None = None
    """A stratified, seeded part of the data; None is all of it."""
    robustness_rows: int | None = 500
    """0 leaves robustness out."""
    resamples: int = 1000
    seed: int = 13


def evaluate(
    location: str,
    data: str,
    out: str,
    settings: EvaluationSettings,
    tell: Callable[[str, int, int], None] = lambda *_: None,
    *,
    node: str = DEFAULT_NODE,
) -> dict[str, Any]:
    """Evaluate a model, write `evaluation.json` and the ledger of it under `out`, and return the record.

    Args:
        location: a bundle, a run folder, or a trained model's folder.
        data: where the labelled rows are.
        tell: called with what is done, how much of it is done and of how much.
        node: node type of the price book that it is billed as.

    Raises:
        ConfigError: the price book has no such node.
        DataError: the data cannot be read, or hold labels that the model does not know.
        ModelError, BundleError: there is no such model, or it is damaged.
    """
    check_node(node)
    source = find_model(location)
    threads = len(hardware.usable_cores())
    predictor = source.open(threads)
    rows = _load(predictor, data, settings)
    folder = RunFolder(out)
    started = time.perf_counter()
    with (
        open_job(folder, "evaluate", data=data, model=location, node=node) as ledger,
        ledger.meter("evaluation", cores=threads, detail=f"evaluate {source.name}"),
    ):
        record = _measure(predictor, source, rows, settings, tell)
    record |= {
        "model": source.location,
        "engine": source.engine,
        "precision": source.precision,
        "data": data,
        "settings": dataclasses.asdict(settings),
        "elapsed_s": time.perf_counter() - started,
        "hardware": hardware.describe_hardware(),
    }
    folder.put(record, RECORD)
    return record


def _load(predictor: Predictor, data: str, settings: EvaluationSettings) -> Rows:
    task = predictor.task
    rows = load_rows(
        data,
        settings.text_column,
        settings.label_column,
        settings.max_row_bytes,
        task.layout,
        settings.prompt_column,
    )
    rows = rows.select(np.flatnonzero([not is_empty(value) for value in rows.inputs]))
    if not len(rows):
        raise DataError("every row is empty", where=data, remedy="is --text-column right?")
    known = set(task.labels)
    unknown = sorted({name for label in rows.labels for name in label_names(label)} - known)
    if task.labels and unknown:
        named = ", ".join(map(repr, unknown[:10])) + (" and more" if len(unknown) > 10 else "")
        raise DataError(
            f"{len(unknown)} of its labels are unknown to the model: {named}",
            where=data,
            remedy=f"the model knows {', '.join(task.labels[:10])}{' …' if len(task.labels) > 10 else ''}",
        )
    if settings.rows is not None:
        strata = [stratum(label) for label in rows.labels]
        rows = rows.select(stratified_sample(strata, settings.rows, settings.seed))
    return rows


def _measure(
    predictor: Predictor,
    source: ModelSource,
    rows: Rows,
    settings: EvaluationSettings,
    tell: Callable[[str, int, int], None],
) -> dict[str, Any]:
    task, count = predictor.task, len(rows)
    answers = _answer(predictor, rows, tell)
    truth = find_truth(task, rows.inputs, rows.labels)
    draws = draw_resamples(count, settings.resamples, settings.seed)
    tell("intervals", 0, 1)
    quality = measure_quality(
        answers,
        truth,
        task=task,
        rows=count,
        temperature=source.temperature,
        resamples=settings.resamples,
        seed=settings.seed,
    )
    record: dict[str, Any] = {"task": task.name, "rows": count, "places": len(answers)}
    if settings.robustness_rows != 0:
        tell("robustness", 0, 1)
        corrupted = corrupt(
            rows.inputs, layout=task.layout, rows=settings.robustness_rows, per_row=1, seed=settings.seed
        )
        robustness = measure_robustness(
            corrupted,
            predictor,
            task.tally(answers, truth, count),
            rows.labels,
            resamples=settings.resamples,
            seed=settings.seed,
        )
        quality = quality.model_copy(
            update={
                "robustness": robustness.share,
                "worst_corruption": robustness.worst,
                "worst_corruption_metric": robustness.worst_metric,
                "corruptions": robustness.by_corruption,
            }
        )
    if source.figures is not None:
        record["validation_metric"] = source.figures["metric"]["value"]
        quality = quality.model_copy(update={"gap": record["validation_metric"] - quality.metric.value})
    record["quality"] = quality.model_dump(mode="json")
    if quality.perplexity is not None:
        record["perplexity"] = quality.perplexity.model_dump()
    if not task.labels:
        return record
    tagged = task.layout == "words"
    options: dict[str, Any] = {"rows": count, "draws": draws}
    left_out = (OUTSIDE,) if tagged else ()
    classes = report_classes(answers, truth, task.labels, left_out=left_out, **options)
    record["classes"] = classes.model_dump(mode="json")
    record["confusions"] = [
        pair.model_dump() for pair in find_confusions(answers.predicted, truth, task.labels, _CONFUSIONS)
    ]
    hits = np.bincount(answers.row_of, answers.predicted == truth, minlength=count)
    places = np.bincount(answers.row_of, minlength=count)

    def share(sums: Any) -> Any:
        return sums[..., 0] / np.maximum(sums[..., 1], 1)

    record["accuracy"] = sums_figure(
        np.stack([hits, places], axis=1).astype(float), share, draws
    ).model_dump()
    if tagged:
        entities = report_entities(answers, truth, task.labels, **options)
        record["entities"] = entities.model_dump(mode="json")
    elif len(task.labels) > _TOP:
        among = np.stack([top_share(answers, truth, _TOP), np.ones(count)], axis=1).astype(float)
        record["top5"] = sums_figure(among, share, draws).model_dump()
    return record


def _answer(predictor: Predictor, rows: Rows, tell: Callable[[str, int, int], None]) -> Answers:
    """Answers to all rows, in chunks so that there is progress to tell."""
    from equipoise.tasks import join_answers

    order = np.argsort(predictor.task.lengths(rows.inputs), kind="stable")
    parts = []
    tell("rows", 0, len(order))
    for start in range(0, len(order), _CHUNK_ROWS):
        numbers = order[start : start + _CHUNK_ROWS]
        parts.append((numbers, predictor.answers([rows.inputs[number] for number in numbers])))
        tell("rows", min(start + _CHUNK_ROWS, len(order)), len(order))
    return join_answers(parts)
