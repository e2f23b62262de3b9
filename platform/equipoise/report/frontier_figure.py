"""The frontier figure: every candidate as a point, a plotly.js specification."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from equipoise.report.groups import GROUPS, Standing
from equipoise.report.markup import dollars, interval, per_1k, significant
from equipoise.report.style import GRID, base_layout
from equipoise.runs import Candidate, Figure

# Okabe and Ito's palette, told apart by colour-blind readers; the shapes tell them apart in grey.
_MARKS: dict[str, dict[str, Any]] = {
    "choice": {"symbol": "star", "size": 18, "color": "#D55E00", "opacity": 0.85},
    "teacher": {"symbol": "diamond", "size": 14, "color": "#000000"},
    "frontier": {"symbol": "circle", "size": 11, "color": "#0072B2"},
    "dominated": {"symbol": "square-open", "size": 9, "color": "#7A7A7A"},
    "rejected": {"symbol": "x-thin-open", "size": 10, "color": "#CC79A7"},
}


@dataclass(frozen=True)
class _Axis:
    """One quantity that an axis can show."""

    title: str
    value: Callable[[Candidate], float | Figure | None]
    log: bool = False
    prefix: str = ""


def frontier_figure(standing: Standing) -> dict[str, Any]:
    """Every candidate as a point: cost against quality, with menus for what either axis shows."""
    rate = f"{standing.rps:g} rps" if standing.rps is not None else "each one's arrival rate"
    metric = standing.candidates[0].quality.metric_name
    across = (
        _Axis(f"serving $ per 1,000 requests at {rate}", lambda c: c.cost.serving_usd_per_1k, True, "$"),
        _Axis(f"total $ per 1,000 requests at {rate}", lambda c: c.cost.total_usd_per_1k, True, "$"),
        _Axis("latency p99 (ms, batch 1)", lambda c: c.speed.latency_p99_ms, True),
        _Axis("throughput (requests a second, one replica)", lambda c: c.speed.throughput_rps, True),
        _Axis("size on disk (MB)", lambda c: c.bytes / 1e6, True),
    )
    up = (
        _Axis(f"{escape(metric)} (validation)", lambda c: c.quality.metric),
        _Axis("robustness (share of the metric kept)", lambda c: c.quality.robustness),
        _Axis("expected calibration error", lambda c: c.quality.calibration_error),
    )
    groups = [(group, standing.members(group)) for group in GROUPS]
    shown = [(group, members) for group, members in groups if members]
    traces = [
        {
            "type": "scatter",
            "mode": "markers",
            "name": group,
            "marker": {**_MARKS[group], "line": {"width": 1.5, "color": _MARKS[group]["color"]}},
            "hovertext": [_hover(candidate, group) for candidate in members],
            "hovertemplate": "%{hovertext}<extra></extra>",
            **_points("x", across[0], members),
            **_points("y", up[0], members),
        }
        for group, members in shown
    ]
    parts = [members for _, members in shown]
    return {
        "data": traces,
        "layout": {
            **base_layout(520),
            "margin": {"l": 75, "r": 20, "t": 70, "b": 110},
            "hovermode": "closest",
            "xaxis": _axis_layout(across[0]),
            "yaxis": _axis_layout(up[0]),
            "legend": {"orientation": "h", "x": 0, "y": -0.2, "yanchor": "top"},
            "updatemenus": [_menu("y", up, parts, 0.0), _menu("x", across, parts, 0.42)],
        },
    }


def _points(letter: str, axis: _Axis, members: Sequence[Candidate]) -> dict[str, Any]:
    """A trace's coordinates on one axis, and its error bars where the quantity has intervals."""
    found = [axis.value(candidate) for candidate in members]
    figures = [value if isinstance(value, Figure) else None for value in found]
    return {
        letter: [value.value if isinstance(value, Figure) else value for value in found],
        f"error_{letter}": {
            "type": "data",
            "symmetric": False,
            "visible": any(figures),
            "array": [max(0.0, f.high - f.value) if f else 0.0 for f in figures],
            "arrayminus": [max(0.0, f.value - f.low) if f else 0.0 for f in figures],
            "thickness": 1,
            "width": 3,
        },
    }


def _menu(
    letter: str, axes: Sequence[_Axis], parts: Sequence[Sequence[Candidate]], x: float
) -> dict[str, Any]:
    """A dropdown that redraws every trace on another quantity."""
    buttons = []
    for axis in axes:
        points = [_points(letter, axis, members) for members in parts]
        layout = {f"{letter}axis.{key}": value for key, value in _axis_layout(axis).items() if key != "title"}
        restyle = {key: [point[key] for point in points] for key in (letter, f"error_{letter}")}
        relayout = {**layout, f"{letter}axis.title.text": axis.title, f"{letter}axis.autorange": True}
        label = f"{'Up' if letter == 'y' else 'Across'}: {axis.title}"
        buttons.append({"method": "update", "label": label, "args": [restyle, relayout]})
    return {
        "type": "dropdown",
        "direction": "down",
        "buttons": buttons,
        "x": x,
        "xanchor": "left",
        "y": 1.04,
        "yanchor": "bottom",
        "bgcolor": "#ffffff",
        "bordercolor": "#8a8a8a",
    }


def _axis_layout(axis: _Axis) -> dict[str, Any]:
    return {
        "title": {"text": axis.title},
        "type": "log" if axis.log else "linear",
        "tickprefix": axis.prefix,
        "tickformat": "~g",
        "tickangle": 0,
        "nticks": 8,
        "gridcolor": GRID,
        "zeroline": False,
        "showline": True,
        "linecolor": "#8a8a8a",
    }


def _hover(candidate: Candidate, group: str) -> str:
    quality, speed, cost = candidate.quality, candidate.speed, candidate.cost
    lines = [
        f"<b>{escape(candidate.recipe.label)}</b> ({group})",
        f"{escape(quality.metric_name)} {interval(quality.metric)}",
        f"drop {interval(candidate.metric_drop)}",
        f"robustness {interval(quality.robustness)}",
        f"calibration error {interval(quality.calibration_error)}",
        f"p99 {interval(speed.latency_p99_ms)} ms",
        f"throughput {interval(speed.throughput_rps)} rps a replica",
        f"size {significant(candidate.bytes / 1e6)} MB",
        f"serving {per_1k(cost.serving_usd_per_1k, cost.rps)} per 1,000, {cost.replicas} replicas",
        f"total {dollars(cost.total_usd)} over {cost.horizon_months:g} months",
    ]
    if candidate.rejection:
        lines.append(f"rejected: {escape(candidate.rejection)}")
    return "<br>".join(lines)
