"""How many requests a second a replica carries, and so how many whole replicas an arrival rate takes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from equipoise.config.cost import CostConfig
from equipoise.costs.replica_model import ReplicaModel, replay_p99_s, replica_model
from equipoise.errors import EquipoiseError
from equipoise.runs.records import Speed

_COUNTS = (1, 2, 3, 4, 6, 8, 16, 32, 64)
"""Fleets that are replayed; what lies between two carries what the smaller does a replica."""
_LOADS = (0.005, 0.01, 0.02, *(step / 20 for step in range(1, 21)))
"""Rates that are replayed, as shares of the planned utilization."""
_NEXT_TO_NOTHING = 1e-9
_FUZZ = 1e-9
"""Relative excess over a whole number of replicas that is taken for a rounding error."""


@dataclass(frozen=True)
class ReplicaCapacity:
    """Requests a second of one replica, by the size of the fleet that it is part of.

    `counts` rise from 1, and `rps_each` never falls with them: in a larger fleet requests wait less at the
    same load. `p99_ms` is the latency objective that this keeps; None where there is none to keep.
    """

    counts: tuple[int, ...]
    rps_each: tuple[float, ...]
    p99_ms: float | None = None

    def replicas(self, rps: NDArray[np.float64]) -> NDArray[np.int64]:
        """The fewest whole replicas that carry each arrival rate; at least 1.

        Args:
            rps: requests a second, of any shape.

        Raises:
            EquipoiseError: a rate is negative or not finite, or a replica carries nothing.
        """
        if not (np.isfinite(rps).all() and (rps >= 0).all()):
            raise EquipoiseError("must be finite numbers of at least 0", where="rps", value=rps)
        if not all(each > 0 and np.isfinite(each) for each in self.rps_each):
            raise EquipoiseError("must be positive and finite", where="capacity_rps", value=self.rps_each)
        needed = np.zeros(np.shape(rps))
        for count, each, above in zip(self.counts, self.rps_each, (*self.counts[1:], np.inf), strict=True):
            found = np.maximum(np.ceil(rps / each * (1 - _FUZZ)), count)
            needed = np.where((needed == 0) & (found < above), found, needed)
        return needed.astype(np.int64)

    def rps_at(self, replicas: int) -> float:
        """Requests a second of each of `replicas`."""
        return self.rps_each[int(np.searchsorted(self.counts, replicas, side="right")) - 1]


def flat_capacity(capacity_rps: float) -> ReplicaCapacity:
    """The same capacity in every fleet."""
    return ReplicaCapacity((1,), (capacity_rps,))


def plan_capacity(speed: Speed, cost: CostConfig) -> ReplicaCapacity:
    """What a measured candidate's replicas are planned with.

    Without a latency objective it is `target_utilization` of the measured throughput. With one
    (`cost.p99_ms`) it is the highest rate, up to that, at which the 99th percentile of waiting and service
    keeps the objective in a replay of Poisson arrivals. An objective that no fleet keeps even at the lowest
    rate changes nothing, and `p99_ms` of the result is None.
    """
    ceiling = speed.throughput_rps.value * cost.target_utilization
    if cost.p99_ms is None:
        return flat_capacity(ceiling)
    return _replayed(replica_model(speed), ceiling, cost.p99_ms)


@lru_cache(maxsize=1024)
def _replayed(model: ReplicaModel, ceiling_rps: float, p99_ms: float) -> ReplicaCapacity:
    rates = ceiling_rps * np.array(_LOADS)
    p99_s = load_curve_s(model, rates)
    # The highest rate below which every rate keeps the objective; larger fleets never do worse.
    kept = np.logical_and.accumulate(p99_s * 1000 <= p99_ms, axis=1).sum(axis=1)
    best = np.maximum.accumulate(kept)
    if best[-1] == 0:
        return flat_capacity(ceiling_rps)
    able = best > 0
    counts = np.array(_COUNTS)[able]
    each = rates[best[able] - 1]
    if not able[0]:
        # A fleet too small to keep it at any rate carries nothing: the first that can is the smallest.
        counts, each = np.insert(counts, 0, 1), np.insert(each, 0, rates[0] * _NEXT_TO_NOTHING)
    return ReplicaCapacity(tuple(counts.tolist()), tuple(each.tolist()), p99_ms)


def load_curve_s(model: ReplicaModel, rates: NDArray[np.float64]) -> NDArray[np.float64]:
    """99th percentile of waiting and service, (fleets, rates), in seconds.

    Args:
        model: the replica.
        rates: (rates,) requests a second that come to one replica.
    """
    counts = np.repeat(_COUNTS, len(rates))
    return replay_p99_s(model, np.tile(rates, len(_COUNTS)), counts).reshape(len(_COUNTS), len(rates))
