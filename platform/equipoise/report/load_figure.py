"""The load curve: dollars per 1,000 requests against arrival rate, a plotly.js specification."""

from __future__ import annotations

from html import escape
from typing import Any

import numpy as np
from pydantic import ValidationError

from equipoise.config.cost import CostConfig
from equipoise.costs.capacity import plan_capacity
from equipoise.costs.load_curve import LoadCurve, break_even_rps, break_even_sentence, load_curve
from equipoise.costs.price_book import load_prices
from equipoise.costs.profiles import load_profile
from equipoise.errors import InputError
from equipoise.report.groups import Standing
from equipoise.report.style import AXIS, base_layout
from equipoise.runs import Candidate

CURVES = 6
"""Frontier members drawn, beside the choice and the teacher."""

_POINTS = 200
_LEAST_HIGHEST_RPS = 1000.0
_HIGHEST_FACTOR = 20.0
_COLORS = {"choice": "#D55E00", "teacher": "#000000"}
_OTHERS = ("#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7A7A7A")
_DASHES = ("solid", "dot", "dash", "longdash", "dashdot", "longdashdot")
"""The dashes tell curves apart in grey."""


def load_figure(standing: Standing, config: dict[str, Any]) -> dict[str, Any] | None:
    """Serving dollars of choice, teacher and the cheapest frontier members at each arrival rate, idle and
    minimum replicas included; None where the run's prices or profile cannot be read here."""
    found = _curves(standing, config)
    if found is None:
        return None
    cost, curves = found
    rates = np.geomspace(1, _highest_rps(cost), _POINTS)
    drawn = [(candidate, curve.usd_per_1k(curve.serving_usd(rates), rates)) for candidate, curve in curves]
    others = iter(zip(_OTHERS, _DASHES, strict=True))
    traces = []
    for candidate, usd in drawn:
        group = standing.group(candidate)
        color, dash = (_COLORS[group], "solid") if group in _COLORS else next(others)
        label = escape(candidate.recipe.label)
        traces.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": f"{label} ({group})" if group in _COLORS else label,
                "x": [float(f"{rate:.6g}") for rate in rates],
                "y": [float(f"{value:.6g}") for value in usd],
                "line": {"color": color, "dash": dash, "width": 3 if group in _COLORS else 1.5},
                "hovertemplate": f"{label}<br>%{{x:.4g}} requests/s: $%{{y:.4g}} per 1,000<extra></extra>",
            }
        )
    return {
        "data": traces,
        "layout": {
            **base_layout(460),
            "margin": {"l": 85, "r": 20, "t": 20, "b": 60},
            "xaxis": {**AXIS, "type": "log", "title": {"text": "requests a second, on average"}},
            "yaxis": {**AXIS, "type": "log", "title": {"text": "serving $ per 1,000 requests"}},
            "legend": {"orientation": "h", "x": 0, "y": -0.2, "yanchor": "top"},
            "shapes": [
                {
                    "type": "line", "x0": cost.rps, "x1": cost.rps, "y0": 0, "y1": 1, "yref": "paper",
                    "line": {"color": "#7A7A7A", "width": 1, "dash": "dot"},
                }
            ],
        },
    }  # fmt: skip


def break_evens(standing: Standing, config: dict[str, Any]) -> list[str]:
    """Above which rate each curve of the figure is cheaper in total than the teacher, in sentences."""
    found = _curves(standing, config)
    teacher = standing.teacher
    if found is None or teacher is None:
        return []
    cost, curves = found
    whole = {candidate.recipe_hash: curve for candidate, curve in curves}[teacher.recipe_hash]
    highest_rps = _highest_rps(cost)
    return [
        break_even_sentence(
            f"{candidate.recipe.label} on {cost.node}",
            f"the teacher ({teacher.recipe.label})",
            break_even_rps(curve, whole, highest_rps),
            highest_rps,
            cost.horizon_months,
        )
        for candidate, curve in curves
        if not candidate.is_teacher
    ]


def _curves(
    standing: Standing, config: dict[str, Any]
) -> tuple[CostConfig, list[tuple[Candidate, LoadCurve]]] | None:
    """Of what is drawn; None where the run's prices or profile cannot be read here."""
    try:
        cost = CostConfig.model_validate(config.get("cost", {}))
        book, profile = load_prices(cost), load_profile(cost.profile)
        return cost, [
            (
                candidate,
                load_curve(candidate.cost, plan_capacity(candidate.speed, cost), cost, book, profile),
            )
            for candidate in _chosen(standing)
        ]
    except (InputError, ValidationError):
        return None


def _highest_rps(cost: CostConfig) -> float:
    return max(_LEAST_HIGHEST_RPS, cost.rps * _HIGHEST_FACTOR)


def _chosen(standing: Standing) -> list[Candidate]:
    """Choice, teacher, and the members of the frontier that are cheapest to serve."""
    found = [candidate for candidate in (standing.chosen, standing.teacher) if candidate is not None]
    found += standing.members("frontier")[:CURVES]
    return list({candidate.recipe_hash: candidate for candidate in found}.values())
