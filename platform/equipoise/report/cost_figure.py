"""The cost figure: the four terms of every candidate as stacked bars, a plotly.js specification."""

from __future__ import annotations

from html import escape
from typing import Any

from equipoise.report.groups import Standing
from equipoise.report.markup import dollars
from equipoise.report.style import GRID, base_layout

_TERMS = (
    ("compute_serving_usd", "compute: serving", "#0072B2", ""),
    ("compute_training_usd", "compute: training", "#56B4E9", "/"),
    ("compute_search_usd", "compute: search", "#009E73", "\\"),
    ("storage_usd", "storage", "#F0E442", "."),
    ("data_usd", "data", "#E69F00", "x"),
    ("maintenance_usd", "maintenance", "#CC79A7", "-"),
)
"""Field of the cost terms, title, colour and pattern; the patterns tell the terms apart in grey."""

BAR_HEIGHT = 30
"""Pixels a candidate."""

SHOWN = 40
"""Candidates drawn, beside the choice and the teacher."""

_SIGNS = {"choice": " ★", "teacher": " ◆"}


def cost_figure(standing: Standing) -> dict[str, Any]:
    """The four cost terms of the cheapest candidates, of choice and teacher, stacked.

    Compute is split in three.
    """
    ranked = sorted(standing.candidates, key=lambda c: c.cost.total_usd)
    rows = [c for rank, c in enumerate(ranked) if rank < SHOWN or standing.group(c) in _SIGNS][::-1]
    names = [candidate.recipe_hash for candidate in rows]
    labels = [f"{escape(c.recipe.label)}{_SIGNS.get(standing.group(c), '')}" for c in rows]
    months = rows[0].cost.horizon_months
    return {
        "data": [
            {
                "type": "bar",
                "orientation": "h",
                "name": title,
                "y": names,
                "x": [getattr(candidate.cost, field) for candidate in rows],
                "marker": {
                    "color": color,
                    "pattern": {"shape": shape, "fillmode": "overlay", "fgcolor": "#ffffff", "size": 6},
                },
                "hovertext": [
                    f"{label}<br>{title}: {dollars(getattr(candidate.cost, field))}"
                    f" of {dollars(candidate.cost.total_usd)}"
                    for label, candidate in zip(labels, rows, strict=True)
                ],
                "hovertemplate": "%{hovertext}<extra></extra>",
            }
            for field, title, color, shape in _TERMS
        ],
        "layout": {
            **base_layout(170 + BAR_HEIGHT * len(rows)),
            "barmode": "stack",
            "margin": {"l": 20, "r": 20, "t": 60, "b": 60},
            "xaxis": {"title": {"text": f"$ over {months:g} months"}, "tickprefix": "$", "gridcolor": GRID},
            "yaxis": {"tickmode": "array", "tickvals": names, "ticktext": labels, "automargin": True},
            "legend": {"orientation": "h", "x": 0, "y": 1.0, "yanchor": "bottom", "traceorder": "normal"},
        },
    }
