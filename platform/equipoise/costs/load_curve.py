"""Dollars against arrival rate: the load curve of a candidate, and where one becomes cheaper than another."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from equipoise.config.cost import CostConfig
from equipoise.costs.capacity import ReplicaCapacity
from equipoise.costs.price_book import PriceBook, node_usd_per_hour, replica_share
from equipoise.costs.profiles import TrafficProfile
from equipoise.costs.serving_plan import HOURS_PER_MONTH, replicas_per_node
from equipoise.runs.records import CostTerms

_MOST_STEPS = 20_000
_ABOVE = 1 + 1e-6
"""Just above a rate at which one more replica is needed."""
_TOLERANCE_USD = 1e-9


@dataclass(frozen=True)
class LoadCurve:
    """A candidate's dollars over the horizon as a step function of the mean arrival rate."""

    capacity: ReplicaCapacity
    profile: TrafficProfile
    share: float
    """Of a node, by one replica."""
    node_usd_per_hour: float
    min_replicas: int
    whole_nodes: bool
    months: float
    other_usd: float
    """Every term but serving: no rate changes them."""

    def mean_replicas(self, rps: NDArray[np.float64]) -> NDArray[np.float64]:
        """Replicas on average over the profile's hours at each mean rate, (rates,)."""
        mean: NDArray[np.float64] = self._replicas(rps).mean(axis=1)
        return mean

    def serving_usd(self, rps: NDArray[np.float64]) -> NDArray[np.float64]:
        """Serving dollars over the horizon at each mean rate, (rates,)."""
        replicas = self._replicas(rps)
        paid = replicas * self.share
        if self.whole_nodes:
            paid = np.ceil(replicas / replicas_per_node(self.share))
        hours = HOURS_PER_MONTH * self.months
        usd: NDArray[np.float64] = paid.mean(axis=1) * self.node_usd_per_hour * hours
        return usd

    def total_usd(self, rps: NDArray[np.float64]) -> NDArray[np.float64]:
        """All four terms over the horizon at each mean rate, (rates,)."""
        return self.serving_usd(rps) + self.other_usd

    def usd_per_1k(self, usd: NDArray[np.float64], rps: NDArray[np.float64]) -> NDArray[np.float64]:
        """Dollars over the horizon as dollars per 1,000 requests."""
        return usd / (rps * 3600 * HOURS_PER_MONTH * self.months) * 1000

    def steps(self, highest_rps: float) -> NDArray[np.float64]:
        """Mean rates up to `highest_rps` at which a further replica is needed, (steps,); the finest that
        are told apart where there are more than 20,000."""
        peaks = np.unique(self.profile.peaks[self.profile.peaks > 0])
        each = min(self.capacity.rps_each)
        most = int(min(highest_rps * peaks.max() / each + 1, _MOST_STEPS / len(peaks)))
        counts = np.arange(1, most + 1)
        carried = counts * np.array([self.capacity.rps_at(int(count)) for count in counts])
        found = np.unique(np.divide.outer(carried, peaks))
        return found[found <= highest_rps]

    def _replicas(self, rps: NDArray[np.float64]) -> NDArray[np.int64]:
        return np.maximum(
            self.capacity.replicas(np.multiply.outer(rps, self.profile.peaks)), self.min_replicas
        )


def load_curve(
    terms: CostTerms, capacity: ReplicaCapacity, cost: CostConfig, book: PriceBook, profile: TrafficProfile
) -> LoadCurve:
    """The load curve of a candidate that `terms` priced at one rate.

    Raises:
        ConfigError: the node is not in the price book, or a replica does not fit on it.
    """
    return LoadCurve(
        capacity=capacity,
        profile=profile,
        share=replica_share(book, cost),
        node_usd_per_hour=node_usd_per_hour(book, cost),
        min_replicas=cost.min_replicas,
        whole_nodes=cost.whole_nodes,
        months=cost.horizon_months,
        other_usd=terms.total_usd - terms.compute_serving_usd,
    )


def break_even_rps(curve: LoadCurve, other: LoadCurve, highest_rps: float) -> float | None:
    """The mean rate above which `curve` is cheaper in total than `other`, everything included.

    Both are step functions, so they may cross more than once: this is the last crossing.

    Returns:
        Requests a second; 0 where it is cheaper at every rate, None where it is not at `highest_rps`.
    """
    steps = np.concatenate([curve.steps(highest_rps), other.steps(highest_rps)])
    starts = np.unique(np.concatenate([[0.0], steps[steps < highest_rps]]))
    # Between two steps nothing changes: a rate just above each start stands for its whole stretch.
    above = np.minimum(starts * _ABOVE, highest_rps)
    rates = np.where(starts > 0, above, starts[starts > 0].min(initial=highest_rps) / 2)
    dearer = curve.total_usd(rates) >= other.total_usd(rates) - _TOLERANCE_USD
    if not dearer.any():
        return 0.0
    last = int(np.flatnonzero(dearer)[-1])
    return None if last == len(starts) - 1 else float(starts[last + 1])


def break_even_sentence(name: str, rival: str, rps: float | None, highest_rps: float, months: float) -> str:
    """What `break_even_rps` found, for a reader.

    Args:
        name: of the one that may become cheaper; `rival` of the other.
        rps: what was found up to `highest_rps`.
        months: horizon that the dollars are over.
    """
    term = f"over {months:g} months, training and search included"
    if rps is None:
        return f"up to {highest_rps:g} requests/s {name} is not cheaper than {rival} {term}"
    if rps == 0:
        return f"at every rate {name} is cheaper than {rival} {term}"
    rate = f"{rps:,.0f}" if rps >= 100 else f"{rps:.3g}"
    return f"above {rate} requests/s {name} is cheaper than {rival} {term}"
