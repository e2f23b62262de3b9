"""The progress figure: how much the search had found after each trial, a plotly.js specification."""

from __future__ import annotations

from html import escape
from typing import Any

from equipoise.report.frontier_data import MARKS
from equipoise.report.groups import Standing
from equipoise.report.style import GRID, base_layout
from equipoise.search.hypervolume import positions, progress, reference_point


def progress_figure(standing: Standing) -> dict[str, Any] | None:
    """Hypervolume over trials in the order they finished; None where the order is not on record."""
    names = [str(name) for name in standing.frontier.get("objectives", ())]
    timed = [candidate for candidate in standing.candidates if candidate.measured_at]
    if standing.teacher is None or not names or len(timed) < len(standing.candidates):
        return None
    ordered = sorted(timed, key=lambda c: (c.measured_at or "", c.recipe_hash))
    tried = [candidate for candidate in ordered if candidate.eligible]
    reached = progress(positions(tried, names), reference_point(standing.teacher, names))
    found = dict(zip((candidate.recipe_hash for candidate in tried), reached, strict=True))
    volumes: list[float] = []
    for candidate in ordered:
        volumes.append(found.get(candidate.recipe_hash, volumes[-1] if volumes else 0.0))
    shares = [volume / volumes[-1] if volumes[-1] else 0.0 for volume in volumes]
    trials = list(range(1, len(ordered) + 1))
    color = MARKS["frontier"]["color"]
    return {
        "data": [
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": "hypervolume",
                "x": trials,
                "y": shares,
                "line": {"shape": "hv", "color": color},
                "marker": {"size": 6, "color": color},
                "hovertext": [
                    f"trial {number}: {escape(candidate.recipe.label)}<br>{share:.1%} of the last hypervolume"
                    for number, candidate, share in zip(trials, ordered, shares, strict=True)
                ],
                "hovertemplate": "%{hovertext}<extra></extra>",
            }
        ],
        "layout": {
            **base_layout(320),
            "margin": {"l": 75, "r": 20, "t": 20, "b": 60},
            "xaxis": {"title": {"text": "trials"}, "gridcolor": GRID, "zeroline": False, "tickformat": "d"},
            "yaxis": {
                "title": {"text": "share of the last hypervolume"},
                "gridcolor": GRID,
                "rangemode": "tozero",
                "tickformat": ".0%",
            },
            "showlegend": False,
        },
    }
