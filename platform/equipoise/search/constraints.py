"""What a choice must meet: each constraint with its bound, its value and how far one is from the other."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from equipoise.config.search import ConstraintsConfig
from equipoise.runs import Candidate, Figure


@dataclass(frozen=True)
class Constraint:
    """One constraint of a run config.

    Args:
        title: for people, unit included.
        figure: what is bounded; None where it was not measured, which meets no bound.
        at_least: whether the bound is a lower one.
    """

    name: str
    title: str
    figure: Callable[[Candidate], Figure | float | None]
    at_least: bool = False

    def value(self, candidate: Candidate) -> float | None:
        """What is held against the bound: the figure itself, not an end of its interval."""
        found = self.figure(candidate)
        return found.value if isinstance(found, Figure) else found

    def interval(self, candidate: Candidate) -> tuple[float, float] | None:
        """The 95% interval of what is bounded; None where it has none."""
        found = self.figure(candidate)
        return (found.low, found.high) if isinstance(found, Figure) else None

    def margin(self, candidate: Candidate, bound: float) -> float | None:
        """Distance to the bound in the constraint's own unit; negative where it is violated."""
        value = self.value(candidate)
        if value is None:
            return None
        return value - bound if self.at_least else bound - value

    def excess(self, candidate: Candidate, bound: float) -> float:
        """Violation as a share of the bound; 0 where it is met, infinite where nothing was measured."""
        margin = self.margin(candidate, bound)
        if margin is None:
            return math.inf
        return max(0.0, -margin) / max(abs(bound), 1e-3)

    def relaxed(self, bound: float, share: float) -> float:
        """The bound, wider by a share of itself."""
        return bound * (1 - share if self.at_least else 1 + share)


def _relative_drop(candidate: Candidate) -> float | None:
    """The drop as a share of the teacher's metric; None where the teacher's is 0."""
    drop = candidate.metric_drop.value
    teacher = candidate.quality.metric.value + drop
    return drop / teacher if teacher > 0 else None


CONSTRAINTS = {
    constraint.name: constraint
    for constraint in (
        Constraint("max_drop", "metric drop", lambda c: c.metric_drop),
        Constraint("max_relative_drop", "metric drop, of the teacher's", _relative_drop),
        Constraint("p99_ms", "latency p99 (ms)", lambda c: c.speed.latency_p99_ms),
        Constraint("max_usd_month", "serving $ a month", lambda c: c.cost.serving_usd_month),
        Constraint("max_mb", "size (MB)", lambda c: c.bytes / 1e6),
        Constraint("min_robustness", "robustness", lambda c: c.quality.robustness, at_least=True),
    )
}
"""By the name of the key in the run config."""


def bounds(config: ConstraintsConfig) -> dict[str, float]:
    """The constraints that are set, with their bounds."""
    found = {name: getattr(config, name) for name in CONSTRAINTS}
    return {name: bound for name, bound in found.items() if bound is not None}


def excesses(candidate: Candidate, config: ConstraintsConfig) -> dict[str, float]:
    """Each violated constraint with its excess as a share of the bound."""
    found = {name: CONSTRAINTS[name].excess(candidate, bound) for name, bound in bounds(config).items()}
    return {name: excess for name, excess in found.items() if excess > 0}
