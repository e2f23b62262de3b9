"""What an axis of the report can show: every figure of a candidate, with its title and scale."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from equipoise.report.groups import Standing
from equipoise.report.markup import dollars, interval, per_1k, significant
from equipoise.runs import TOKEN_LIKELIHOOD, Candidate, Figure


@dataclass(frozen=True)
class Quantity:
    """One figure of a candidate.

    Args:
        key: names it in the page's data and in its controls.
        short: title of a table column.
        value: a figure has an interval, a number none; None where it was not measured.
        log: whether an axis is logarithmic.
        usd: whether it is in dollars.
    """

    key: str
    title: str
    short: str
    value: Callable[[Candidate], Figure | float | None]
    log: bool = False
    usd: bool = False

    def text(self, candidate: Candidate) -> str:
        """The figure as a cell of a table; dollars per request beside their arrival rate."""
        found = self.value(candidate)
        if found is None:
            return "–"
        if isinstance(found, Figure):
            return interval(found)
        if not self.usd:
            return significant(found)
        return per_1k(found, candidate.cost.rps) if self.key.endswith("per_1k") else dollars(found)


def quantities(standing: Standing) -> tuple[Quantity, ...]:
    """Every quantity of a run, quality first; dollars per request name the arrival rate they hold at."""
    rate = f"{standing.rps:g} rps" if standing.rps is not None else "each one's arrival rate"
    metric = standing.candidates[0].quality.metric_name
    return (
        Quantity("metric", f"{metric} (validation)", metric, lambda c: c.quality.metric),
        Quantity("drop", f"{metric} lost against the teacher", "drop from teacher", lambda c: c.metric_drop),
        _beside(metric),
        Quantity(
            "robustness", "robustness (share of the metric kept)", "robustness",
            lambda c: c.quality.robustness,
        ),
        Quantity(
            "worst", f"{metric} under the worst corruption", "worst corruption",
            lambda c: c.quality.worst_corruption_metric,
        ),
        Quantity(
            "calibration", "expected calibration error", "calibration error",
            lambda c: c.quality.calibration_error,
        ),
        Quantity("gap", f"{metric} on train minus validation", "train gap", lambda c: c.quality.gap),
        Quantity("p50_ms", "latency p50 (ms, batch 1)", "p50 ms", lambda c: c.speed.latency_p50_ms, True),
        Quantity("p99_ms", "latency p99 (ms, batch 1)", "p99 ms", lambda c: c.speed.latency_p99_ms, True),
        Quantity(
            "rps", "throughput (requests a second, one replica)", "throughput rps",
            lambda c: c.speed.throughput_rps, True,
        ),
        Quantity("mb", "size on disk (MB)", "size MB", lambda c: c.bytes / 1e6, True),
        Quantity("parameters", "parameters (millions)", "M parameters", lambda c: c.parameters / 1e6, True),
        Quantity(
            "usd_per_1k", f"serving $ per 1,000 requests at {rate}", "serving $ per 1,000",
            lambda c: c.cost.serving_usd_per_1k, True, True,
        ),
        Quantity(
            "usd_month", f"serving $ a month at {rate}", "serving $ a month",
            lambda c: c.cost.serving_usd_month, True, True,
        ),
        Quantity(
            "total_usd_per_1k", f"total $ per 1,000 requests at {rate}", "total $ per 1,000",
            lambda c: c.cost.total_usd_per_1k, True, True,
        ),
        Quantity(
            "total_usd", f"total $ over {standing.candidates[0].cost.horizon_months:g} months", "total $",
            lambda c: c.cost.total_usd, True, True,
        ),
    )  # fmt: skip


def _beside(metric: str) -> Quantity:
    """The figure that the family's readers expect beside its metric."""
    if metric == TOKEN_LIKELIHOOD:
        return Quantity("perplexity", "perplexity (validation)", "perplexity", lambda c: c.quality.perplexity)
    return Quantity("macro_f1", "macro-F1 (validation)", "macro-F1", lambda c: c.quality.macro_f1)


ACROSS, UP = "usd_per_1k", "metric"
"""What the axes show at first."""
