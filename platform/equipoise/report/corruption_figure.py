"""The corruption figure: the metric of teacher and choice under each corruption."""

from __future__ import annotations

from html import escape
from typing import Any

from equipoise.report.frontier_data import MARKS
from equipoise.report.groups import Standing
from equipoise.report.style import GRID, base_layout

_MARKERS: dict[str, dict[str, Any]] = {
    # Where both stand at one place, the star shows through the open diamond.
    "teacher": {"symbol": "diamond-open", "size": 13, "color": "#000000", "line": {"width": 2}},
    "choice": {**MARKS["choice"], "size": 12},
}


def corruption_figure(standing: Standing) -> dict[str, Any] | None:
    """A point a model and corruption, what hurts the choice most on top; None without figures."""
    models = {
        group: candidate
        for group, candidate in (("teacher", standing.teacher), ("choice", standing.chosen))
        if candidate is not None and candidate.quality.corruptions
    }
    if not models:
        return None
    *_, last = models.values()
    corruptions = last.quality.corruptions
    kinds = sorted(corruptions, key=lambda kind: -corruptions[kind])
    metric = escape(last.quality.metric_name)
    traces: list[dict[str, Any]] = [
        {
            "type": "scatter",
            "mode": "markers",
            "name": group,
            "x": [candidate.quality.corruptions.get(kind) for kind in kinds],
            "y": [escape(kind.replace("_", " ")) for kind in kinds],
            "marker": _MARKERS[group],
            "hovertemplate": f"%{{y}}: {metric} %{{x:.4f}}<extra>{group}</extra>",
        }
        for group, candidate in models.items()
    ]
    clean = [
        {
            "type": "line",
            "x0": candidate.quality.metric.value,
            "x1": candidate.quality.metric.value,
            "y0": 0,
            "y1": 1,
            "yref": "paper",
            "line": {"color": MARKS[group]["color"], "dash": "dot", "width": 1.5},
        }
        for group, candidate in models.items()
    ]
    return {
        "data": traces,
        "layout": {
            **base_layout(140 + 26 * len(kinds)),
            "margin": {"l": 20, "r": 20, "t": 40, "b": 60},
            "shapes": clean,
            "xaxis": {"title": {"text": f"{metric} on corrupted rows"}, "gridcolor": GRID, "zeroline": False},
            "yaxis": {"automargin": True, "gridcolor": GRID},
            "legend": {"orientation": "h", "x": 0, "y": 1.0, "yanchor": "bottom"},
        },
    }
