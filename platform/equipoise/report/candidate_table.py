"""The table of all candidates: each row can be picked for the figure, each column sorted by."""

from __future__ import annotations

from html import escape

from equipoise.report.groups import Standing
from equipoise.report.quantities import Quantity, quantities
from equipoise.runs import Candidate, Figure

_CAPTION = (
    "Validation figures with 95% intervals, cheapest to serve first. The head of a column sorts by it; the "
    "name of a candidate marks it in the figure."
)


def candidate_table(standing: Standing) -> str:
    """Every figure of every candidate, one row each."""
    axes = quantities(standing)
    heads = [("recipe", "text"), ("standing", "text"), *((axis.short, "number") for axis in axes)]
    head = "".join(
        f'<th scope="col" aria-sort="none"><button type="button" class="sort" data-column="{column}" '
        f'data-kind="{kind}">{escape(title)}</button></th>'
        for column, (title, kind) in enumerate((*heads, ("replicas", "number")))
    )
    rows = "\n".join(_row(candidate, standing, axes) for candidate in standing.candidates)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="All candidates">'
        f'<table class="numbers" id="candidates"><caption>{escape(_CAPTION)}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>\n{rows}\n</tbody></table></div>"
    )


def _row(candidate: Candidate, standing: Standing, axes: tuple[Quantity, ...]) -> str:
    group = standing.group(candidate)
    shown = f"{group} (teacher)" if candidate.is_teacher and group != "teacher" else group
    cells = [f'<td data-value="{escape(shown)}">{escape(shown)}</td>']
    for axis in axes:
        found = axis.value(candidate)
        number = found.value if isinstance(found, Figure) else found
        value = "" if number is None else repr(float(number))
        cells.append(f'<td data-value="{value}">{escape(axis.text(candidate))}</td>')
    cells.append(f'<td data-value="{candidate.cost.replicas}">{candidate.cost.replicas}</td>')
    name, label = escape(candidate.recipe_hash), escape(candidate.recipe.label)
    return (
        f'<tr data-hash="{name}"><th scope="row" data-value="{label}">'
        f'<button type="button" class="pick" data-hash="{name}" aria-pressed="false">{label}</button></th>'
        f"{''.join(cells)}</tr>"
    )
