"""One replica as a queue: how long a request takes, waiting included, at each arrival rate.

The replica answers in batches: it takes whatever waits, up to its batch size, and what comes meanwhile waits
for the next batch. Batch times lie on a line through two measurements (one request; a full batch) and vary
as single requests were measured to. A front spreads requests over the replicas in turn, so that the
arrivals at one of n replicas are n-th arrivals of the whole (Erlang-n): the more replicas, the more even.
Serve's own front picks the replica with the fewest connections, which waits no longer than taking turns.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from equipoise.runs.records import Speed

_Z99 = 2.3263478740408408
"""The standard normal's 99th percentile."""
_ARRIVALS = 4000
_WARM_UP = 200


@dataclass(frozen=True)
class ReplicaModel:
    """Batch times of a replica: `(single_s + further_s x (rows - 1)) x noise`, where `noise` is lognormal
    with median 1 and standard deviation `spread` of its logarithm."""

    single_s: float
    further_s: float
    spread: float
    batch_size: int

    @property
    def throughput_rps(self) -> float:
        """Requests a second in full batches."""
        return self.batch_size / (self._median_s(self.batch_size) * math.exp(self.spread**2 / 2))

    def _median_s(self, rows: float) -> float:
        return self.single_s + self.further_s * (rows - 1)

    def batch_s(self, rows: NDArray[np.int64], noise: NDArray[np.float64]) -> NDArray[np.float64]:
        """Seconds of batches of `rows`; `noise` is standard normal, of the same shape."""
        median_s = self.single_s + self.further_s * (rows.astype(np.float64) - 1)
        return median_s * np.exp(self.spread * noise)


def replica_model(speed: Speed) -> ReplicaModel:
    """The model of a measured candidate: p50 and p99 of one request, and throughput in full batches."""
    single_s = speed.latency_p50_ms.value / 1000
    spread = math.log(max(speed.latency_p99_ms.value / speed.latency_p50_ms.value, 1.0)) / _Z99
    full_s = speed.batch_size / speed.throughput_rps.value / math.exp(spread**2 / 2)
    if speed.batch_size == 1:
        return ReplicaModel(full_s, 0.0, spread, 1)
    further_s = max(full_s - single_s, 0.0) / (speed.batch_size - 1)
    return ReplicaModel(min(single_s, full_s), further_s, spread, speed.batch_size)


def replay_p99_s(
    model: ReplicaModel, rates: NDArray[np.float64], replicas: NDArray[np.int64], seed: int = 0
) -> NDArray[np.float64]:
    """99th percentile of waiting and service, by replaying arrivals against the replica's batch times.

    Args:
        model: the replica.
        rates: (lanes,) requests a second that come to one replica.
        replicas: (lanes,) replicas that share the traffic, in turn.
        seed: of arrivals and batch times; the same in all lanes, so that lanes differ by their rates only.

    Returns:
        (lanes,) seconds; infinite where the rate is more than full batches carry.
    """
    noise = np.random.default_rng([seed, 7]).standard_normal(_ARRIVALS)
    shared = {count: _even_gaps(count, seed) for count in set(replicas.tolist())}
    gaps = np.stack([shared[count] for count in replicas.tolist()])
    arrivals = np.cumsum(gaps, axis=1) / rates[:, None]
    # One sorted array for all lanes, each in a stretch of time of its own: one search a step for them all.
    offsets = np.arange(len(rates)) * (arrivals[:, -1].max() * 2 + 1)
    line = (arrivals + offsets[:, None]).ravel()
    active, begin, free = np.arange(len(rates)), np.zeros(len(rates), dtype=np.int64), np.zeros(len(rates))
    batches: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]] = []
    while len(active):
        at = begin[active]
        first = active * _ARRIVALS
        start = np.maximum(free[active], arrivals[active, at])
        come = np.searchsorted(line, start + offsets[active], side="right") - first
        rows = np.clip(np.minimum(come, _ARRIVALS) - at, 1, model.batch_size)
        free[active] = start + model.batch_s(rows, noise[at])
        begin[active] = at + rows
        batches.append((first + at, rows, free[active]))
        active = active[begin[active] < _ARRIVALS]
    at, rows, finish = (np.concatenate(column) for column in zip(*batches, strict=True))
    order = np.argsort(at)
    done = np.repeat(finish[order], rows[order]).reshape(arrivals.shape)
    p99: NDArray[np.float64] = np.percentile((done - arrivals)[:, _WARM_UP:], 99, axis=1)
    return np.where(rates < model.throughput_rps, p99, np.inf)


def _even_gaps(replicas: int, seed: int) -> NDArray[np.float64]:
    """Gaps of mean 1 between every `replicas`-th arrival of a Poisson stream."""
    return np.random.default_rng([seed, 8, replicas]).gamma(replicas, 1 / replicas, _ARRIVALS)
