"""What the page's script draws the frontier figure from: every candidate with every quantity."""

from __future__ import annotations

from html import escape
from typing import Any

from equipoise.report.groups import GROUPS, Standing
from equipoise.report.markup import dollars, interval, per_1k, significant
from equipoise.report.quantities import ACROSS, UP, Quantity, quantities
from equipoise.runs import Candidate, Figure

# Okabe and Ito's palette, told apart by colour-blind readers; the shapes tell them apart in grey.
MARKS: dict[str, dict[str, Any]] = {
    "choice": {"symbol": "star", "size": 18, "color": "#D55E00", "opacity": 0.85},
    "teacher": {"symbol": "diamond", "size": 14, "color": "#000000"},
    "frontier": {"symbol": "circle", "size": 11, "color": "#0072B2"},
    "dominated": {"symbol": "square-open", "size": 9, "color": "#7A7A7A"},
    "rejected": {"symbol": "x-thin-open", "size": 10, "color": "#CC79A7"},
}


def frontier_data(standing: Standing) -> dict[str, Any]:
    """Axes, groups and candidates, as JSON values; `values` are (value, low, high) by quantity."""
    axes = quantities(standing)
    return {
        "across": ACROSS,
        "up": UP,
        "quantities": {axis.key: {"title": escape(axis.title), "log": axis.log} for axis in axes},
        "groups": [
            {
                "name": group,
                "marker": {**MARKS[group], "line": {"width": 1.5, "color": MARKS[group]["color"]}},
            }
            for group in GROUPS
        ],
        "candidates": [_point(candidate, standing, axes) for candidate in standing.candidates],
    }


def facets(candidate: Candidate) -> dict[str, str]:
    """What the page can be filtered by."""
    recipe = candidate.recipe
    return {"engine": recipe.engine, "precision": recipe.precision, "structure": recipe.structure}


def _point(candidate: Candidate, standing: Standing, axes: tuple[Quantity, ...]) -> dict[str, Any]:
    group = standing.group(candidate)
    lines = describe(candidate, group)
    return {
        "hash": candidate.recipe_hash,
        "label": candidate.recipe.label,
        "group": group,
        "facets": facets(candidate),
        "lines": lines,
        "hover": "<br>".join(map(escape, lines)),
        "values": {axis.key: _value(axis.value(candidate)) for axis in axes},
    }


def _value(found: Figure | float | None) -> list[float] | None:
    if found is None:
        return None
    return [found.value, found.low, found.high] if isinstance(found, Figure) else [found, found, found]


def describe(candidate: Candidate, group: str) -> list[str]:
    """A candidate in a dozen short lines, its recipe first."""
    quality, speed, cost, recipe = candidate.quality, candidate.speed, candidate.cost, candidate.recipe
    made = "distilled" if recipe.distilled else "the teacher's own weights"
    widths = recipe.structure.partition("), ")[2]
    lines = [
        f"{recipe.label} ({group})",
        f"recipe {candidate.recipe_hash}: layers {','.join(map(str, recipe.layers))}, "
        f"{widths + ', ' if widths else ''}{made}, "
        f"{recipe.precision} in {recipe.engine}",
        f"{quality.metric_name} {interval(quality.metric)}, drop {interval(candidate.metric_drop)}",
        f"robustness {interval(quality.robustness)}",
        f"calibration error {interval(quality.calibration_error)}",
        f"p99 {interval(speed.latency_p99_ms)} ms, throughput {interval(speed.throughput_rps)} rps a replica",
        f"{significant(candidate.bytes / 1e6)} MB, {significant(candidate.parameters / 1e6)} M parameters",
        f"serving {per_1k(cost.serving_usd_per_1k, cost.rps)} per 1,000, {cost.replicas} replicas",
        f"total {dollars(cost.total_usd)} over {cost.horizon_months:g} months",
    ]
    if speed.peak_memory_bytes is not None:
        lines.append(f"{significant(speed.peak_memory_bytes / 1e6)} MB of memory at its peak")
    if candidate.spared:
        lines.append(f"{len(candidate.spared)} operations stay in fp32")
    if candidate.rejection:
        lines.append(f"rejected: {candidate.rejection}")
    return lines
