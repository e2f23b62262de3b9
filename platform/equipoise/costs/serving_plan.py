"""What serving takes at an arrival rate: whole replicas hour by hour, the nodes under them, and dollars."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from equipoise.config.cost import CostConfig
from equipoise.costs.capacity import ReplicaCapacity, flat_capacity
from equipoise.costs.price_book import PriceBook, node_usd_per_hour, replica_share
from equipoise.costs.profiles import TrafficProfile, load_profile
from equipoise.errors import EquipoiseError

HOURS_PER_MONTH = 730.0
"""A twelfth of 365 days."""


@dataclass(frozen=True)
class ServingPlan:
    """Replicas of a candidate at one arrival rate."""

    rps: float
    """The mean over the profile."""
    peak_replicas: int
    """In the busiest hour."""
    mean_replicas: float
    """Over the hours of the profile."""
    capacity_rps: float
    """Requests a second that each of `peak_replicas` is planned with."""
    usd_per_hour: float
    """Of one replica."""
    peak_nodes: int
    """Nodes that `peak_replicas` stand on, where nothing else shares them."""
    node_idle_usd_month: float
    """What those nodes cost a month beside the replicas' shares of them."""
    pays_node_idle: bool
    """Whether that is the deployment's to pay."""

    @property
    def usd_month(self) -> float:
        """Serving dollars a month."""
        return self._usd_per_hour * HOURS_PER_MONTH

    @property
    def usd_per_1k(self) -> float:
        """Serving dollars per 1,000 requests, idle time of the replicas included."""
        return serving_usd_per_1k(1, self._usd_per_hour, self.rps)

    @property
    def _usd_per_hour(self) -> float:
        idle = self.node_idle_usd_month / HOURS_PER_MONTH if self.pays_node_idle else 0.0
        return self.mean_replicas * self.usd_per_hour + idle


def plan_serving(
    cost: CostConfig, book: PriceBook, capacity: ReplicaCapacity, profile: TrafficProfile | None = None
) -> ServingPlan:
    """Whole replicas for each hour of the profile, at least `cost.min_replicas`.

    Args:
        cost: arrival rate, profile, and what a replica takes of its node.
        book: the prices.
        capacity: what a replica carries.
        profile: the profile of `cost.profile`, where it has been read already.

    Raises:
        ConfigError: the node or the profile is unknown, or a replica does not fit on the node.
        EquipoiseError: the capacity is not a positive, finite number.
    """
    profile = profile or load_profile(cost.profile)
    share, node_usd = replica_share(book, cost), node_usd_per_hour(book, cost)
    replicas = hourly_replicas(cost, capacity, profile)
    nodes = np.ceil(replicas / replicas_per_node(share))
    peak = int(replicas.max())
    idle = (nodes * node_usd).mean() - replicas.mean() * share * node_usd
    return ServingPlan(
        rps=cost.rps,
        peak_replicas=peak,
        mean_replicas=float(replicas.mean()),
        capacity_rps=capacity.rps_at(peak),
        usd_per_hour=share * node_usd,
        peak_nodes=int(nodes.max()),
        node_idle_usd_month=max(float(idle), 0.0) * HOURS_PER_MONTH,
        pays_node_idle=cost.whole_nodes,
    )


def hourly_replicas(
    cost: CostConfig, capacity: ReplicaCapacity, profile: TrafficProfile
) -> NDArray[np.int64]:
    """Whole replicas in each hour of the profile, (hours,): what its busiest minute takes."""
    return np.maximum(capacity.replicas(cost.rps * profile.peaks), cost.min_replicas)


def replicas_per_node(share: float) -> int:
    """Whole replicas that fit on a node of which each takes `share`."""
    return max(1, math.floor(1 / share * (1 + 1e-9)))


def replicas_needed(rps: float, capacity_rps: float) -> int:
    """Whole replicas that carry `rps` requests a second at `capacity_rps` each; at least 1.

    Raises:
        EquipoiseError: a rate is not a positive, finite number.
    """
    _check_positive(rps=rps, capacity_rps=capacity_rps)
    return int(flat_capacity(capacity_rps).replicas(np.array([rps]))[0])


def serving_usd_per_1k(replicas: float, usd_per_hour: float, rps: float) -> float:
    """Dollars per 1,000 requests of `replicas`, idle time included, when `rps` requests a second arrive.

    Args:
        replicas: whole replicas that are kept running, or their mean over the hours.
        usd_per_hour: price of one of them.
        rps: arrival rate, requests per second.

    Raises:
        EquipoiseError: the arrival rate is not a positive, finite number.
    """
    _check_positive(rps=rps)
    return replicas * usd_per_hour / (rps * 3600) * 1000


def _check_positive(**rates: float) -> None:
    for name, rate in rates.items():
        if not (rate > 0 and math.isfinite(rate)):
            raise EquipoiseError("must be a positive, finite number", where=name, value=rate)
