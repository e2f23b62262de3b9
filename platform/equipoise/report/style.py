"""How the report looks: its style sheet, for a screen and for paper, and what its figures share."""

from __future__ import annotations

from typing import Any

GRID = "#e3e3e3"
"""Colour of grid lines."""

_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif"

STYLE = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body {
  margin: 0 auto; padding: 1.5rem 2rem 3rem; max-width: 1280px; color: #1a1a1a; background: #fff;
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif;
}
h1 { font-size: 1.7rem; margin: 0 0 .25rem; line-height: 1.2; }
h2 { font-size: 1.2rem; margin: 2.2rem 0 .6rem; padding-top: .9rem; border-top: 1px solid #d5d5d5; }
p { margin: .4rem 0; max-width: 75ch; }
.sub { color: #555; }
.answer { border-left: 5px solid #d55e00; background: #fbf4ef; padding: .8rem 1.1rem; margin: 1rem 0; }
.answer p { max-width: none; }
.answer strong { font-size: 1.1rem; }
.warn { border-left: 5px solid #b8860b; background: #fdf8e7; padding: .5rem 1rem; margin: .8rem 0; }
dl.key {
  display: grid; grid-template-columns: repeat(auto-fit, minmax(11rem, 1fr)); gap: .8rem; margin: 1rem 0;
}
dl.key div { border: 1px solid #d5d5d5; border-radius: 6px; padding: .5rem .8rem; }
dl.key dt { color: #555; font-size: .85rem; }
dl.key dd { margin: 0; font-size: 1.05rem; font-weight: 600; font-variant-numeric: tabular-nums; }
figure { margin: .5rem 0; }
figcaption { color: #555; font-size: .9rem; max-width: 85ch; margin-top: .4rem; }
.scroll { overflow-x: auto; margin: .6rem 0; }
table { border-collapse: collapse; min-width: 24rem; font-size: .85rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; color: #555; padding: .2rem 0 .4rem; }
th, td { padding: .3rem .6rem; border-bottom: 1px solid #e3e3e3; text-align: left; vertical-align: top; }
thead th { border-bottom: 2px solid #8a8a8a; vertical-align: bottom; }
tbody th { font-weight: 600; white-space: nowrap; }
table.numbers td, table.numbers thead th:not(:first-child) { text-align: right; }
table.numbers td { white-space: nowrap; }
table.numbers th:first-child { position: sticky; left: 0; background: #fff; }
table:not(.numbers) td { overflow-wrap: anywhere; }
[hidden] { display: none !important; }
.controls { display: flex; flex-wrap: wrap; gap: .5rem 1rem; align-items: start; margin: .6rem 0; }
.controls p { flex-basis: 100%; margin: 0; }
.controls label { display: inline-flex; align-items: center; gap: .35rem; }
.controls select { font: inherit; max-width: 24rem; }
.controls fieldset {
  border: 1px solid #d5d5d5; border-radius: 6px; padding: .2rem .7rem .4rem; margin: 0;
  display: flex; flex-wrap: wrap; gap: .1rem .9rem; max-height: 8rem; overflow-y: auto;
}
.controls legend { color: #555; font-size: .85rem; }
button { font: inherit; }
button.pick, button.sort {
  border: 0; background: none; padding: 0; cursor: pointer;
  text-align: inherit; color: inherit; font-weight: inherit;
}
button.pick { text-decoration: underline dotted; }
button.pick[aria-pressed="true"] { text-decoration: underline solid 2px; }
th[aria-sort="ascending"] button.sort::after { content: " ▲"; }
th[aria-sort="descending"] button.sort::after { content: " ▼"; }
:focus-visible { outline: 3px solid #0072b2; outline-offset: 2px; }
#picked { border-left: 5px solid #1a1a1a; background: #f5f5f5; padding: .4rem 1rem; margin: .6rem 0; }
#picked:empty { display: none; }
#picked p { margin: 0; max-width: none; }
#picked p:first-child { font-weight: 600; }
.plot { width: 100%; }
summary { cursor: pointer; }
footer { margin-top: 2.5rem; color: #555; font-size: .85rem; }
@media print {
  @page { size: A4 landscape; margin: 12mm; }
  body { padding: 0; max-width: none; font-size: 10pt; }
  h2 { break-after: avoid; }
  figure, tr, .answer { break-inside: avoid; }
  .scroll { overflow: visible; }
  table { font-size: 7pt; }
  th, td { padding: .15rem .3rem; }
  table.numbers td, tbody th { white-space: normal; }
  .modebar, .controls { display: none !important; }
  button.pick { text-decoration: none; }
}
"""


def base_layout(height: int) -> dict[str, Any]:
    """The part of a plotly.js layout that every figure has; `height` in pixels."""
    return {
        "height": height,
        "font": {"family": _FONT, "size": 13, "color": "#1a1a1a"},
        "paper_bgcolor": "#ffffff",
        "plot_bgcolor": "#ffffff",
        "hoverlabel": {"align": "left", "bgcolor": "#ffffff", "font": {"size": 12}},
    }


AXIS: dict[str, Any] = {
    "tickangle": 0,
    "nticks": 8,
    "gridcolor": GRID,
    "zeroline": False,
    "showline": True,
    "linecolor": "#8a8a8a",
}
"""What both axes of the frontier figure have, whatever they show."""

FRONTIER_LAYOUT: dict[str, Any] = {
    **base_layout(520),
    "margin": {"l": 75, "r": 20, "t": 20, "b": 110},
    "hovermode": "closest",
    "legend": {"orientation": "h", "x": 0, "y": -0.2, "yanchor": "top", "traceorder": "reversed"},
}
"""Layout of the frontier figure, less its axes."""
