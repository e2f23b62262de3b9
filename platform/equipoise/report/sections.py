"""The sections of the report, as HTML."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from equipoise.report.bill_table import bill_table
from equipoise.report.candidate_table import candidate_table
from equipoise.report.class_figure import SHOWN
from equipoise.report.class_table import class_table
from equipoise.report.controls import controls
from equipoise.report.cost_figure import SHOWN as BARS
from equipoise.report.estimate_table import estimate_table
from equipoise.report.groups import Standing
from equipoise.report.markup import compact, dollars, interval, per_1k, record_table, significant, table
from equipoise.report.split_table import split_table
from equipoise.runs import Candidate, RunFolder
from equipoise.search.comparability import hardware_note, slower_notes
from equipoise.search.constraints import CONSTRAINTS


def answer(standing: Standing) -> str:
    """What was chosen and why, its main figures, and its margin on each constraint."""
    chosen, choice = standing.chosen, standing.choice
    reason = escape(str(choice.get("reason") or ""))
    if chosen is None:
        body = f"<p><strong>No choice</strong></p><p>{reason or 'None is on record for this run.'}</p>"
        return f'<section aria-label="Choice"><div class="answer">{body}</div></section>'
    keeps = bool(choice.get("keep_teacher", chosen.is_teacher))
    head = f"Keep the teacher: {chosen.recipe.label}" if keeps else chosen.recipe.label
    body = f"<p><strong>{escape(head)}</strong></p><p>{reason}</p>"
    return (
        f'<section aria-label="Choice"><div class="answer">{body}</div>'
        f"{_key_figures(chosen, standing)}{_margins(standing)}</section>"
    )


def frontier(standing: Standing) -> str:
    """The scatter of all candidates, with its controls."""
    objectives = ", ".join(map(str, standing.frontier.get("objectives", ()))) or "the objectives"
    caption = (
        "Each point is a measured candidate; bars are 95% intervals. On the frontier are those that no "
        f"other beats on every one of: {objectives}. Two axes show two of them at a time, so a frontier "
        "point can look beaten here. Point at a candidate for its recipe; every figure also stands in the "
        "table of all candidates."
    )
    picked = '<div id="picked" role="status"></div>'
    return _section("Performance against cost", f"{controls(standing)}{_figure('frontier', caption)}{picked}")


def classes(standing: Standing) -> str:
    """What the choice loses of each class; nothing where it is not on record."""
    found = standing.comparison
    if found is None or not found.classes:
        return ""
    sure = sum(row.f1_difference.high < 0 for row in found.classes)
    words = (
        f"Of {found.rows:,} validation rows, teacher and choice answer {found.agree:.2%} alike; the teacher "
        f"alone is right on {found.only_first}, the choice alone on {found.only_second}. "
        f"{sure} of {len(found.classes)} classes lose F1 by more than their interval leaves open."
    )
    shown = f" The {SHOWN} that lose most are drawn." if len(found.classes) > SHOWN else ""
    caption = (
        "Difference of F1 by class with paired 95% intervals, the number of rows in brackets. ◀ lost and ▶ "
        f"gained where the interval excludes 0, ● where it does not.{shown}"
    )
    folded = f"<details><summary>Show all classes as a table</summary>{class_table(found)}</details>"
    return _section(
        "Classes: the choice against the teacher",
        f"<p>{escape(words)}</p>{_figure('classes', caption)}{folded}",
    )


def corruptions() -> str:
    """The metric under each corruption."""
    caption = (
        "The metric on corrupted validation rows, by corruption and its strength; the dotted line is the "
        "metric on all clean rows."
    )
    return _section("Robustness by corruption", _figure("corruptions", caption))


def progress() -> str:
    """Hypervolume over trials."""
    caption = (
        "Hypervolume of the eligible candidates after each trial, as a share of that after the last one, "
        "over the objectives of the search: how much they improve on a reference point of the teacher's "
        "latency, dollars and bytes (as logarithms) and 5 points less than its metric, robustness and "
        "calibration. A flat end says that more trials of the same space would hardly have helped."
    )
    return _section("What the search found over its trials", _figure("progress", caption))


def costs() -> str:
    """The stacked bars of cost terms."""
    caption = (
        "Compute (training, search and serving, idle time included), storage, data and maintenance in "
        f"dollars over the horizon, the cheapest life on top, at most {BARS} of them beside ★ the choice and "
        "◆ the teacher. The boxes above hide candidates here too."
    )
    return _section("What a life costs", _figure("costs", caption))


def load(break_evens: Sequence[str]) -> str:
    """The load curves, and where they cross the teacher's."""
    caption = (
        "Serving dollars per 1,000 requests of choice, teacher and the cheapest of the frontier, at each "
        "average arrival rate with the run's traffic profile and latency objective: whole replicas, so "
        "their idle time and the last one that always stays up are in it. The dotted line is the declared "
        "rate. `equipoise cost` tells the same of any two."
    )
    crossings = "".join(f"<li>{escape(sentence)}</li>" for sentence in break_evens)
    body = _figure("load", caption) + (f"<ul>{crossings}</ul>" if crossings else "")
    return _section("What a request costs at other traffic", body)


def candidates(standing: Standing) -> str:
    """Every figure of every candidate."""
    return _section("All candidates", candidate_table(standing))


def test_split(content: dict[str, Any]) -> str:
    """Teacher and choice on test, side by side where the record has both."""
    title = "On test, read once after the choice"
    found = split_table(content)
    return record(title, content) if found is None else _section(title, found)


def rejected(standing: Standing) -> str:
    """The candidates that were kept out of the frontier, with the reasons."""
    rows = [
        (candidate.recipe.label, candidate.rejection or "no reason on record")
        for candidate in standing.candidates
        if not candidate.eligible
    ]
    if not rows:
        return _section("Rejected", "<p>No candidate was rejected.</p>")
    caption = "Measured, but kept out of the frontier and the choice."
    return _section("Rejected", table(("recipe", "reason"), rows, caption, numbers=False))


def slower(standing: Standing) -> str:
    """Candidates that came out slower than what they were made of; nothing where there are none."""
    notes = slower_notes(standing.candidates)
    if not notes:
        return ""
    lines = "".join(f"<li>{escape(note)}</li>" for note in notes)
    return _section("Slower than their parents", f"<ul>{lines}</ul>")


def spared(standing: Standing) -> str:
    """What stays in fp32 in the models of int8_guarded; nothing where there is no such model."""
    rows = [
        (candidate.recipe.label, ", ".join(candidate.spared) or "none: int8 lost no more than allowed")
        for candidate in standing.candidates
        if candidate.recipe.precision == "int8_guarded"
    ]
    if not rows:
        return ""
    caption = "Operations that were taken out of int8 because the metric fell too far with them in it."
    return _section("Spared from int8", table(("recipe", "in fp32"), rows, caption, numbers=False))


def hardware(standing: Standing) -> str:
    """The machines that the candidates were measured on; a warning where they differ."""
    machines = {str(c.hardware.get("fingerprint", "unknown")): c.hardware for c in standing.candidates}
    tables = [
        record_table(machine, f"Measured on machine {fingerprint}.")
        for fingerprint, machine in sorted(machines.items())
    ]
    note = hardware_note(standing.candidates)
    warning = f'<p class="warn" role="note">The candidates were {escape(note)}.</p>' if note else ""
    return _section("Hardware", warning + "".join(tables))


def bill(run: RunFolder) -> str:
    """What the run itself took by the ledger; nothing where it has none."""
    found = bill_table(run)
    return _section("What this run cost", found) if found else ""


def estimate(expected: dict[str, Any], took: dict[str, Any]) -> str:
    """What the run was to take, beside what it took; nothing where neither is on record."""
    body = estimate_table(expected, took)
    return _section("Estimate against actual", body) if body else ""


def record(title: str, content: dict[str, Any], *, folded: bool = False) -> str:
    """A record of the run as a table of keys and values; nothing where it is empty."""
    if not content:
        return ""
    body = record_table(content, f"{title}: every value on record.")
    if folded:
        body = f"<details><summary>Show all {escape(title.lower())} values</summary>{body}</details>"
    return _section(title, body)


def _key_figures(chosen: Candidate, standing: Standing) -> str:
    cost, teacher = chosen.cost, standing.teacher
    pairs = [
        (chosen.quality.metric_name, interval(chosen.quality.metric)),
        ("drop from teacher", interval(chosen.metric_drop)),
        ("latency p99", f"{significant(chosen.speed.latency_p99_ms.value)} ms"),
        ("serving per 1,000 requests", per_1k(cost.serving_usd_per_1k, cost.rps)),
        (f"total over {cost.horizon_months:g} months", dollars(cost.total_usd)),
    ]
    if teacher is not None and not chosen.is_teacher:
        ratio = cost.serving_usd_per_1k / teacher.cost.serving_usd_per_1k
        pairs.append((f"serving cost, teacher = 1, at {cost.rps:g} rps", significant(ratio)))
    if paid := _break_even(standing.choice):
        pairs.append(("search and training paid back", paid))
    cells = "".join(f"<div><dt>{escape(key)}</dt><dd>{escape(value)}</dd></div>" for key, value in pairs)
    return f'<dl class="key">{cells}</dl>'


def _margins(standing: Standing) -> str:
    """Each constraint with the choice's margin, and what widening it by a tenth would save."""
    constraints = standing.choice.get("constraints")
    if not isinstance(constraints, dict) or not constraints:
        return ""
    relaxed = standing.choice.get("relaxed")
    rows = []
    for name, found in constraints.items():
        entry = found if isinstance(found, dict) else {"bound": found}
        cells = (entry.get(key) for key in ("bound", "value", "margin"))
        shown = [compact(cell) if isinstance(cell, int | float) else "–" for cell in cells]
        title = CONSTRAINTS[name].title if name in CONSTRAINTS else str(name)
        wider = relaxed.get(name) if isinstance(relaxed, dict) else None
        rows.append((title, *shown, _saving(wider)))
    head = ("constraint", "bound", "the choice", "margin", "if the bound were 10% wider")
    return table(head, rows, "Constraints on the choice.")


def _saving(wider: Any) -> str:
    if not isinstance(wider, dict):
        return "–"
    saved = wider.get("saves_usd", 0)
    return f"saves {dollars(saved)}: {wider.get('label')}" if saved > 0 else "saves nothing"


def _break_even(choice: dict[str, Any]) -> str | None:
    months = choice.get("break_even_months")
    if not isinstance(months, int | float) or choice.get("keep_teacher"):
        return None
    return "at once" if months < 0.05 else f"after {months:.1f} months"


def _figure(name: str, caption: str) -> str:
    """The place where the page's script draws a figure."""
    return (
        f'<figure role="group" aria-labelledby="caption-{name}"><div class="plot" id="figure-{name}"></div>'
        f'<figcaption id="caption-{name}">{escape(caption)}</figcaption></figure>'
    )


def _section(title: str, body: str) -> str:
    anchor = "-".join("".join(c if c.isalnum() else " " for c in title.lower()).split())
    return f'<section aria-labelledby="{anchor}"><h2 id="{anchor}">{escape(title)}</h2>\n{body}</section>'
