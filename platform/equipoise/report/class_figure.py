"""The class figure: what the choice loses or gains of each class against the teacher."""

from __future__ import annotations

from html import escape
from typing import Any

from equipoise.report.style import GRID, base_layout
from equipoise.search.comparison import Comparison

SHOWN = 30
"""Classes drawn; those that lose most come first, and the table has them all."""

_LOST, _GAINED, _UNSURE = "#D55E00", "#0072B2", "#7A7A7A"


def class_figure(comparison: Comparison) -> dict[str, Any]:
    """Differences of F1 by class with paired intervals; what is lost most stands on top."""
    rows = comparison.classes[:SHOWN][::-1]
    figures = [row.f1_difference for row in rows]
    colors = [_LOST if f.high < 0 else _GAINED if f.low > 0 else _UNSURE for f in figures]
    symbols = [
        "triangle-left" if f.high < 0 else "triangle-right" if f.low > 0 else "circle" for f in figures
    ]
    labels = [f"{escape(row.label)} ({row.places})" for row in rows]
    return {
        "data": [
            {
                "type": "scatter",
                "mode": "markers",
                "x": [figure.value for figure in figures],
                "y": list(range(len(rows))),
                "marker": {"color": colors, "symbol": symbols, "size": 10},
                "error_x": {
                    "type": "data",
                    "symmetric": False,
                    "array": [max(0.0, f.high - f.value) for f in figures],
                    "arrayminus": [max(0.0, f.value - f.low) for f in figures],
                    "color": "#7A7A7A",
                    "thickness": 1,
                    "width": 3,
                },
                "hovertext": [
                    f"<b>{label}</b><br>F1 {row.f1[0]:.3f} teacher, {row.f1[1]:.3f} choice"
                    f"<br>recall {row.recall[0]:.3f} teacher, {row.recall[1]:.3f} choice"
                    f"<br>F1 {f.value:+.3f} [{f.low:+.3f}, {f.high:+.3f}]"
                    for label, row, f in zip(labels, rows, figures, strict=True)
                ],
                "hovertemplate": "%{hovertext}<extra></extra>",
            }
        ],
        "layout": {
            **base_layout(120 + 26 * len(rows)),
            "margin": {"l": 20, "r": 20, "t": 20, "b": 60},
            "xaxis": {
                "title": {"text": "F1, choice minus teacher"},
                "gridcolor": GRID,
                "zeroline": True,
                "zerolinecolor": "#1a1a1a",
            },
            "yaxis": {
                "tickmode": "array",
                "tickvals": list(range(len(rows))),
                "ticktext": labels,
                "automargin": True,
                "zeroline": False,
                "gridcolor": GRID,
            },
            "showlegend": False,
        },
    }
