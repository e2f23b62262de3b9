"""The table of the test split: teacher and choice, read once after the choice was made."""

from __future__ import annotations

from typing import Any

from equipoise.report.markup import interval, signed, table
from equipoise.runs import Figure, Quality

_TITLES = {"macro_f1": "macro-F1", "calibration_error": "calibration error"}


def split_table(record: dict[str, Any]) -> str | None:
    """The figures that both have with their intervals, and the drop; None where there are none."""
    sides = [record.get(side) for side in ("teacher", "choice")]
    if not all(isinstance(side, dict) for side in sides):
        return None
    teacher, choice = (side if isinstance(side, dict) else {} for side in sides)
    names = [name for name in teacher if _is_figure(teacher[name]) and _is_figure(choice.get(name))]
    if not names:
        return None
    metric = str(teacher.get("metric_name", "metric"))
    titles = {"metric": metric, **_TITLES}
    rows = [
        (titles.get(name, name), *(interval(Figure.model_validate(side[name])) for side in (teacher, choice)))
        for name in names
    ]
    beside = [_perplexity(side) for side in (teacher, choice)]
    if all(beside):
        rows.insert(1, ("perplexity", *beside))
    if _is_figure(record.get("drop")):
        rows.append((f"{metric} lost against the teacher", "", signed(Figure.model_validate(record["drop"]))))
    count = record.get("rows")
    caption = f"{count:,} test rows" if isinstance(count, int) else "Test rows"
    return table(("", "teacher", "choice"), rows, f"{caption}; 95% intervals.")


def _perplexity(side: dict[str, Any]) -> str:
    """Of a language model, with its interval; empty for the other families."""
    found = Quality.model_validate(side).perplexity if _is_figure(side.get("calibration_error")) else None
    return "" if found is None else interval(found)


def _is_figure(value: Any) -> bool:
    return isinstance(value, dict) and {"value", "low", "high", "n"} <= value.keys()
