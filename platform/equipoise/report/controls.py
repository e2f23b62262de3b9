"""The page's controls: what the axes show, and which candidates are shown; plain HTML inputs."""

from __future__ import annotations

from html import escape

from equipoise.report.frontier_data import facets
from equipoise.report.groups import Standing
from equipoise.report.quantities import ACROSS, UP, quantities

_FACETS = {"engine": "Engine", "precision": "Precision", "structure": "Structure"}


def controls(standing: Standing) -> str:
    """Two menus for the axes and a box to tick for every engine, precision and structure."""
    fields = [_menu("up", "Up", UP, standing), _menu("across", "Across", ACROSS, standing)]
    fields += [_boxes(facet, title, standing) for facet, title in _FACETS.items()]
    return (
        '<form class="controls" id="controls" aria-label="What the figures show">'
        + "".join(fields)
        + '<p><button type="button" id="show-all">Show all</button> '
        '<span role="status" id="shown"></span></p></form>'
    )


def _menu(name: str, title: str, selected: str, standing: Standing) -> str:
    options = "".join(
        f'<option value="{axis.key}"{" selected" * (axis.key == selected)}>{escape(axis.title)}</option>'
        for axis in quantities(standing)
    )
    return f'<label>{title} <select id="axis-{name}">{options}</select></label>'


def _boxes(facet: str, title: str, standing: Standing) -> str:
    values = dict.fromkeys(facets(candidate)[facet] for candidate in standing.candidates)
    boxes = "".join(
        f'<label><input type="checkbox" name="{facet}" value="{value}" checked> {value}</label>'
        for value in map(escape, sorted(values))
    )
    toggle = f'<button type="button" class="toggle" aria-label="{title}: all or none">all or none</button>'
    return f"<fieldset><legend>{title}</legend>{boxes}{toggle}</fieldset>"
