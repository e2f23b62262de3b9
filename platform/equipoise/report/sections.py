"""The sections of the report, as HTML."""

from __future__ import annotations

from html import escape
from typing import Any

import plotly.io

from equipoise.report.cost_figure import cost_figure
from equipoise.report.frontier_figure import frontier_figure
from equipoise.report.groups import Standing
from equipoise.report.markup import compact, dollars, interval, per_1k, record_table, significant, table
from equipoise.runs import Candidate

_COLUMNS = (
    "standing", "drop from teacher", "robustness", "calibration error", "train gap", "p50 ms", "p99 ms",
    "throughput rps", "size MB", "replicas", "serving $ per 1,000", "serving $ a month", "total $",
    "total $ per 1,000",
)  # fmt: skip
_CONSTRAINTS = {
    "max_drop": "metric drop",
    "p99_ms": "latency p99 (ms)",
    "max_usd_month": "serving $ a month",
    "max_mb": "size (MB)",
}


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
        f"{_key_figures(chosen, standing)}{_margins(choice.get('constraints'))}</section>"
    )


def frontier(standing: Standing) -> str:
    """The scatter of all candidates."""
    objectives = ", ".join(map(str, standing.frontier.get("objectives", ()))) or "the objectives"
    caption = (
        "Each point is a measured candidate; bars are 95% intervals. On the frontier are those that no "
        f"other beats on every one of: {objectives}. Two axes show two of them at a time, so a frontier "
        "point can look beaten here. The menus change the axes. Every figure also stands in the table of "
        "all candidates."
    )
    # The first figure brings plotly.js along; the second uses the same.
    drawn = _figure(frontier_figure(standing), caption, "frontier", with_library=True)
    return _section("Performance against cost", drawn)


def costs(standing: Standing) -> str:
    """The stacked bars of cost terms."""
    caption = (
        "Compute (training, search and serving, idle time included), storage, data and maintenance in "
        "dollars over the horizon, the cheapest life on top. ★ is the choice, ◆ the teacher."
    )
    return _section("What a life costs", _figure(cost_figure(standing), caption, "costs", with_library=False))


def candidates(standing: Standing) -> str:
    """Every figure of every candidate."""
    metric = standing.candidates[0].quality.metric_name
    head = ("recipe", _COLUMNS[0], metric, *_COLUMNS[1:])
    rows = [_row(candidate, standing.group(candidate)) for candidate in standing.candidates]
    caption = "Validation figures with 95% intervals, cheapest to serve first."
    return _section("All candidates", table(head, rows, caption))


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


def hardware(standing: Standing) -> str:
    """The machines that the candidates were measured on; a warning where they differ."""
    machines = {str(c.hardware.get("fingerprint", "unknown")): c.hardware for c in standing.candidates}
    tables = [
        record_table(machine, f"Measured on machine {fingerprint}.")
        for fingerprint, machine in sorted(machines.items())
    ]
    warning = (
        '<p class="warn" role="note">The candidates were measured on machines that differ: their '
        "latencies, throughputs and serving costs are not comparable.</p>"
    )
    return _section("Hardware", (warning if len(machines) > 1 else "") + "".join(tables))


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
    cells = "".join(f"<div><dt>{escape(key)}</dt><dd>{escape(value)}</dd></div>" for key, value in pairs)
    return f'<dl class="key">{cells}</dl>'


def _margins(constraints: Any) -> str:
    if not isinstance(constraints, dict) or not constraints:
        return ""
    rows = []
    for name, found in constraints.items():
        entry = found if isinstance(found, dict) else {"bound": found}
        cells = (entry.get(key) for key in ("bound", "value", "margin"))
        shown = [compact(cell) if isinstance(cell, int | float) else "–" for cell in cells]
        rows.append((_CONSTRAINTS.get(name, str(name)), *shown))
    return table(("constraint", "at most", "the choice", "margin"), rows, "Constraints on the choice.")


def _row(candidate: Candidate, group: str) -> tuple[str, ...]:
    quality, speed, cost = candidate.quality, candidate.speed, candidate.cost
    return (
        candidate.recipe.label,
        f"{group} (teacher)" if candidate.is_teacher and group != "teacher" else group,
        interval(quality.metric),
        interval(candidate.metric_drop),
        interval(quality.robustness),
        interval(quality.calibration_error),
        "–" if quality.gap is None else significant(quality.gap),
        significant(speed.latency_p50_ms.value),
        interval(speed.latency_p99_ms),
        significant(speed.throughput_rps.value),
        significant(candidate.bytes / 1e6),
        str(cost.replicas),
        per_1k(cost.serving_usd_per_1k, cost.rps),
        dollars(cost.serving_usd_month),
        dollars(cost.total_usd),
        per_1k(cost.total_usd_per_1k, cost.rps),
    )


def _figure(spec: dict[str, Any], caption: str, name: str, *, with_library: bool) -> str:
    drawn = plotly.io.to_html(
        spec,
        config={"displaylogo": False, "responsive": True, "showSendToCloud": False, "plotlyServerURL": ""},
        include_plotlyjs=with_library,
        include_mathjax=False,
        full_html=False,
        div_id=f"figure-{name}",
        validate=False,
    )
    return (
        f'<figure role="group" aria-labelledby="caption-{name}">{drawn}'
        f'<figcaption id="caption-{name}">{escape(caption)}</figcaption></figure>'
    )


def _section(title: str, body: str) -> str:
    anchor = "-".join("".join(c if c.isalnum() else " " for c in title.lower()).split())
    return f'<section aria-labelledby="{anchor}"><h2 id="{anchor}">{escape(title)}</h2>\n{body}</section>'
