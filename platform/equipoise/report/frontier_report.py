"""The frontier report: one HTML file that a person opens offline, made from a run's records only."""

from __future__ import annotations

import json
from html import escape
from pathlib import Path
from typing import Any

from plotly.offline import get_plotlyjs

from equipoise import storage
from equipoise.report import sections
from equipoise.report.class_figure import class_figure
from equipoise.report.corruption_figure import corruption_figure
from equipoise.report.cost_figure import BAR_HEIGHT, cost_figure
from equipoise.report.frontier_data import frontier_data
from equipoise.report.groups import Standing, read_record, read_standing
from equipoise.report.load_figure import break_evens, load_figure
from equipoise.report.progress_figure import progress_figure
from equipoise.report.style import AXIS, FRONTIER_LAYOUT, STYLE
from equipoise.runs import RunFolder

_PAGE = Path(__file__).with_name("page.js")

# The file is its own whole: whatever a record or a library says, a browser fetches and sends nothing.
_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data: blob:; font-src data:; form-action 'none'; base-uri 'none'"
)


def write_report(run: RunFolder) -> str:
    """Put `report.html` in the run folder.

    Returns:
        Its location.

    Raises:
        RunFolderError: the run has no finished candidate.
        StorageError: the disk is full, or the store refused the write.
    """
    location = run.path("report.html")
    storage.put_bytes(location, render_report(run).encode())
    return location


def render_report(run: RunFolder) -> str:
    """The report as one HTML document, plotly.js included; it loads nothing from a network.

    Raises:
        RunFolderError: the run has no finished candidate.
    """
    standing = read_standing(run)
    config = read_record(run, "config.json")
    name = str(config.get("name", run.location.rstrip("/").rsplit("/", 1)[-1]))
    figures = _figures(standing, config)
    body = [
        sections.answer(standing),
        sections.frontier(standing),
        sections.classes(standing),
        sections.corruptions() if "corruptions" in figures else "",
        sections.costs(),
        sections.load(break_evens(standing, config)) if "load" in figures else "",
        sections.progress() if "progress" in figures else "",
        sections.candidates(standing),
        sections.rejected(standing),
        sections.slower(standing),
        sections.spared(standing),
        sections.test_split(read_record(run, "test.json")),
        sections.record("Measured while serving", read_record(run, "served.json")),
        sections.bill(run),
        sections.estimate(read_record(run, "estimate.json"), read_record(run, "actual.json")),
        sections.hardware(standing),
        sections.record("Data", read_record(run, "data.json"), folded=True),
        sections.record("Run config", config, folded=True),
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>Equipoise: {escape(name)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f"<header><h1>{escape(name)}</h1>\n"
        f'<p class="sub">{_subtitle(standing, config)}</p></header>\n<main>\n'
        + "\n".join(section for section in body if section)
        + f"\n</main>\n<footer>Made by Equipoise from {escape(run.location)}.</footer>\n"
        + f"{_scripts(standing, figures)}</body>\n</html>\n"
    )


def _figures(standing: Standing, config: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Specifications of the figures that are drawn once, by name."""
    comparison = standing.comparison
    found = {
        "classes": class_figure(comparison) if comparison and comparison.classes else None,
        "corruptions": corruption_figure(standing),
        "costs": cost_figure(standing),
        "load": load_figure(standing, config),
        "progress": progress_figure(standing),
    }
    return {name: figure for name, figure in found.items() if figure is not None}


def _scripts(standing: Standing, figures: dict[str, dict[str, Any]]) -> str:
    page = {
        "frontier": frontier_data(standing),
        "figures": figures,
        "frontierLayout": FRONTIER_LAYOUT,
        "axis": AXIS,
        "barHeight": BAR_HEIGHT,
    }
    # No text of a record can end the script element that it stands in.
    data = json.dumps(page, allow_nan=False).replace("<", "\\u003c")
    return (
        f'<script type="application/json" id="page-data">{data}</script>\n'
        f"<script>{get_plotlyjs()}</script>\n"
        f"<script>{_PAGE.read_text(encoding='utf-8')}</script>\n"
    )


def _subtitle(standing: Standing, config: dict[str, Any]) -> str:
    first = standing.candidates[0]
    rate = f"{standing.rps:g} requests a second" if standing.rps is not None else "differing arrival rates"
    parts = [
        str(config.get("task", "")).replace("_", " "),
        f"{len(standing.candidates)} candidates",
        f"priced at {rate} over {first.cost.horizon_months:g} months",
    ]
    return escape(" · ".join(part for part in parts if part))
