"""What `equipoise compare` answers: two candidates of one run, side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from equipoise.errors import InputError, RunFolderError
from equipoise.pipeline.summary import require_run
from equipoise.runs import Candidate, Figure, RunFolder
from equipoise.runs.predictions import read_predictions
from equipoise.search.comparability import hardware_note
from equipoise.search.comparison import compare_predictions, record

_FIGURES: dict[str, Callable[[Candidate], Figure | float | None]] = {
    "metric": lambda c: c.quality.metric,
    "macro_f1": lambda c: c.quality.macro_f1,
    "robustness": lambda c: c.quality.robustness,
    "worst_corruption_metric": lambda c: c.quality.worst_corruption_metric,
    "calibration_error": lambda c: c.quality.calibration_error,
    "gap": lambda c: c.quality.gap,
    "latency_p50_ms": lambda c: c.speed.latency_p50_ms,
    "latency_p99_ms": lambda c: c.speed.latency_p99_ms,
    "throughput_rps": lambda c: c.speed.throughput_rps,
    "bytes": lambda c: float(c.bytes),
    "parameters": lambda c: float(c.parameters),
    "replicas": lambda c: float(c.cost.replicas),
    "serving_usd_month": lambda c: c.cost.serving_usd_month,
    "total_usd": lambda c: c.cost.total_usd,
}


def compare(run: RunFolder, first: str, second: str) -> dict[str, Any]:
    """Both candidates' figures, and row by row where their predictions are on record.

    Args:
        first, second: `teacher`, `choice`, or the beginning of a recipe hash.

    Returns:
        `first` and `second` (hash, label, eligible), `figures` (each with both values and the
        ratio), `metric_difference` (second minus first, paired by row; None unless one of them is the
        teacher), and `predictions` (`search.comparison.record`), None where either has none.

    Raises:
        InputError: no candidate, or more than one, goes by a name.
        RunFolderError: there is no run, or a file of predictions is damaged.
    """
    require_run(run)
    candidates = run.candidates()
    pair = [find_candidate(run, candidates, name) for name in (first, second)]
    config = run.read("config.json")
    return {
        "run": run.location,
        "metric_name": pair[0].quality.metric_name,
        "rps": pair[0].cost.rps,
        "first": _name(pair[0]),
        "second": _name(pair[1]),
        "figures": {name: _both(*map(read, pair)) for name, read in _FIGURES.items()},
        "metric_difference": _metric_difference(*pair),
        "predictions": _predictions(run, pair, config),
        "hardware_note": hardware_note(pair),
    }


def find_candidate(run: RunFolder, candidates: Sequence[Candidate], name: str) -> Candidate:
    """The candidate that goes by a name.

    Raises:
        InputError: none does, or more than one.
    """
    if name == "teacher":
        found = [candidate for candidate in candidates if candidate.is_teacher]
    elif name == "choice":
        chosen = run.read("choice.json").get("recipe_hash") if run.has("choice.json") else None
        found = [candidate for candidate in candidates if candidate.recipe_hash == chosen]
    else:
        found = [candidate for candidate in candidates if name and candidate.recipe_hash.startswith(name)]
    if len(found) == 1:
        return found[0]
    if not found:
        raise InputError(
            "no candidate goes by that name",
            where=run.location,
            value=name,
            remedy="give `teacher`, `choice` or the beginning of a hash that `equipoise show` prints",
        )
    raise InputError(
        f"{len(found)} candidates go by that name",
        where=run.location,
        value=name,
        remedy=f"give more of the hash, such as {found[0].recipe_hash}",
    )


def _predictions(run: RunFolder, pair: Sequence[Candidate], config: dict[str, Any]) -> dict[str, Any] | None:
    first, second = (read_predictions(run, candidate.recipe_hash) for candidate in pair)
    if first is None or second is None:
        return None
    if not first.same_places(second):
        raise RunFolderError(
            f"{pair[0].recipe_hash} and {pair[1].recipe_hash} were measured on different rows",
            where=run.location,
            remedy="compare candidates of one run",
        )
    labels = run.read("data.json").get("labels", []) if run.has("data.json") else []
    resamples = config.get("measurement", {}).get("resamples", 1000)
    return record(compare_predictions(first, second, labels, resamples=resamples, seed=config.get("seed", 0)))


def _metric_difference(first: Candidate, second: Candidate) -> dict[str, float] | None:
    """Each record holds the teacher's metric minus its own, paired; between two others nothing is held."""
    if second.is_teacher:
        return first.metric_drop.model_dump()
    if not first.is_teacher:
        return None
    drop = second.metric_drop
    return Figure(value=-drop.value, low=-drop.high, high=-drop.low, n=drop.n).model_dump()


def _name(candidate: Candidate) -> dict[str, Any]:
    return {
        "recipe_hash": candidate.recipe_hash,
        "label": candidate.recipe.label,
        "eligible": candidate.eligible,
        "is_teacher": candidate.is_teacher,
    }


def _both(first: Figure | float | None, second: Figure | float | None) -> dict[str, Any]:
    values = [figure.value if isinstance(figure, Figure) else figure for figure in (first, second)]
    intervals = [
        [figure.low, figure.high] if isinstance(figure, Figure) else None for figure in (first, second)
    ]
    ratio = values[1] / values[0] if values[0] and values[1] is not None else None
    return {"first": values[0], "second": values[1], "intervals": intervals, "ratio": ratio}
