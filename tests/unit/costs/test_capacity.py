from __future__ import annotations

import heapq
import math
from collections import deque

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from equipoise.config.cost import CostConfig
from equipoise.costs.capacity import ReplicaCapacity, flat_capacity, load_curve_s, plan_capacity
from equipoise.costs.replica_model import ReplicaModel, replay_p99_s, replica_model
from equipoise.errors import EquipoiseError
from equipoise.runs import Figure, Speed


def speed(p50_ms: float, p99_ms: float, throughput_rps: float, batch_size: int = 32) -> Speed:
    def figure(value: float) -> Figure:
        return Figure(value=value, low=value, high=value, n=100)

    return Speed(
        latency_p50_ms=figure(p50_ms),
        latency_p99_ms=figure(p99_ms),
        throughput_rps=figure(throughput_rps),
        batch_size=batch_size,
        threads=1,
    )


CPU_TEACHER = speed(24.6, 27.4, 52.9)
"""Batches gain it next to nothing."""
CPU_STUDENT = speed(3.0, 8.2, 501)
GPU = speed(4.0, 5.0, 4000)
"""A full batch takes twice as long as one request."""
MACHINES = {"cpu-teacher": CPU_TEACHER, "cpu-student": CPU_STUDENT, "gpu": GPU}


def fleet_p99_s(
    model: ReplicaModel, rps: float, replicas: int, *, arrivals: int, seed: int, least_connections: bool
) -> float:
    """99th percentile of waiting and service over Poisson arrivals at `rps`, in seconds.

    Replays the whole fleet one event after the other: slow, and nothing like the planner.
    """
    rng = np.random.default_rng(seed)
    times = np.cumsum(rng.exponential(1 / rps, arrivals))
    queues: list[deque[int]] = [deque() for _ in range(replicas)]
    running: list[list[int]] = [[] for _ in range(replicas)]
    open_requests = [0] * replicas
    finished: list[tuple[float, int]] = []
    done = np.empty(arrivals)

    def begin(replica: int, now: float) -> None:
        batch = [queues[replica].popleft() for _ in range(min(len(queues[replica]), model.batch_size))]
        running[replica] = batch
        seconds = (model.single_s + model.further_s * (len(batch) - 1)) * math.exp(
            model.spread * rng.standard_normal()
        )
        heapq.heappush(finished, (now + seconds, replica))

    def finish_until(now: float) -> None:
        while finished and finished[0][0] <= now:
            moment, replica = heapq.heappop(finished)
            done[running[replica]] = moment
            open_requests[replica] -= len(running[replica])
            running[replica] = []
            if queues[replica]:
                begin(replica, moment)

    for index, moment in enumerate(times):
        finish_until(moment)
        replica = int(np.argmin(open_requests)) if least_connections else index % replicas
        queues[replica].append(index)
        open_requests[replica] += 1
        if not running[replica]:
            begin(replica, moment)
    finish_until(math.inf)
    return float(np.percentile((done - times)[arrivals // 20 :], 99))


@pytest.mark.parametrize("measured", MACHINES.values(), ids=MACHINES)
def test_the_model_goes_through_what_was_measured(measured: Speed) -> None:
    model = replica_model(measured)

    assert model.throughput_rps == pytest.approx(measured.throughput_rps.value)
    # Alone, a request takes its median at the median and its p99 at the 99th percentile.
    noise = np.array([0.0, 2.3263478740408408])
    single_ms = model.batch_s(np.array([1, 1]), noise) * 1000
    assert single_ms == pytest.approx(
        [measured.latency_p50_ms.value, measured.latency_p99_ms.value], rel=0.02
    )


def test_batches_may_take_longer_a_row_than_single_requests() -> None:
    """Rows of unlike lengths are padded to the longest."""
    model = replica_model(speed(2.0, 2.0, 200))

    assert model.single_s == pytest.approx(0.002)
    assert model.throughput_rps == pytest.approx(200)


def test_one_row_a_batch_is_the_throughput_alone() -> None:
    model = replica_model(speed(10, 12, 90, batch_size=1))

    assert (model.further_s, model.batch_size) == (0, 1)
    assert model.throughput_rps == pytest.approx(90)


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
def test_one_replica_without_batches_waits_as_theory_says(load: float) -> None:
    """M/D/1 (Poisson arrivals, equal services): Crommelin's exact distribution of the wait."""
    model = replica_model(speed(10, 10, 100, batch_size=1))

    def waits_at_most(t: float) -> float:
        return (1 - load) * math.fsum(
            (load * (k - t)) ** k / math.factorial(k) * math.exp(-load * (k - t)) for k in range(int(t) + 1)
        )

    found_s = np.mean(
        [replay_p99_s(model, np.array([100 * load]), np.array([1]), seed)[0] for seed in range(20)]
    )
    exact = next(t for t in np.arange(0, 40, 0.01) if waits_at_most(t) >= 0.99)
    assert found_s == pytest.approx((exact + 1) * 0.01, rel=0.06)


def test_without_an_objective_utilization_alone_counts() -> None:
    capacity = plan_capacity(CPU_STUDENT, CostConfig(target_utilization=0.7))

    assert capacity == flat_capacity(501 * 0.7)
    assert capacity.p99_ms is None


@pytest.mark.parametrize("objective_ms", [20.0, 50.0, 100.0])
@pytest.mark.parametrize("measured", MACHINES.values(), ids=MACHINES)
@pytest.mark.parametrize("rps", [30.0, 700.0])
@pytest.mark.parametrize("least_connections", [False, True], ids=["in-turn", "least-connections"])
def test_planned_replicas_keep_the_objective_when_arrivals_are_replayed(
    measured: Speed, objective_ms: float, rps: float, least_connections: bool
) -> None:
    """Held against a replay of the whole fleet with arrivals and batch times of its own."""
    capacity = plan_capacity(measured, CostConfig(p99_ms=objective_ms))
    if capacity.p99_ms is None:
        assert measured.latency_p99_ms.value > objective_ms * 0.9
        return
    replicas = int(capacity.replicas(np.array([rps]))[0])
    replayed = [
        fleet_p99_s(
            replica_model(measured),
            rps,
            replicas,
            arrivals=6000,
            seed=seed,
            least_connections=least_connections,
        )
        for seed in (1, 2, 3)
    ]
    assert np.median(replayed) * 1000 <= objective_ms * 1.1


def test_a_replica_fewer_breaks_the_objective_where_the_objective_binds() -> None:
    """The plan is not padded: at 50 ms the CPU teacher needs more than utilization asks for."""
    objective, relaxed = CostConfig(p99_ms=50), CostConfig()
    rates = np.array([50.0])
    planned = int(plan_capacity(CPU_TEACHER, objective).replicas(rates)[0])
    by_utilization = int(plan_capacity(CPU_TEACHER, relaxed).replicas(rates)[0])

    assert planned > by_utilization
    model = replica_model(CPU_TEACHER)
    found = fleet_p99_s(model, 50.0, planned - 1, arrivals=6000, seed=4, least_connections=False)
    assert found * 1000 > 50


def test_an_objective_that_no_fleet_keeps_is_none_and_changes_nothing() -> None:
    assert plan_capacity(CPU_TEACHER, CostConfig(p99_ms=10)) == plan_capacity(CPU_TEACHER, CostConfig())


def test_more_load_and_smaller_fleets_wait_longer() -> None:
    curve = load_curve_s(replica_model(CPU_STUDENT), 401 * np.arange(1, 9) / 8)

    assert (np.diff(curve, axis=1) >= -0.15 * curve[:, :-1]).all()
    assert curve[0, -1] > curve[-1, -1]


@given(objective=st.floats(30, 500), tighter=st.floats(0.5, 1))
@settings(max_examples=8, deadline=None)
def test_a_tighter_objective_never_carries_more(objective: float, tighter: float) -> None:
    tight = plan_capacity(CPU_TEACHER, CostConfig(p99_ms=max(objective * tighter, 28.5)))
    loose = plan_capacity(CPU_TEACHER, CostConfig(p99_ms=objective))
    rates = np.geomspace(0.1, 1e4, 30)

    assert tight.p99_ms is not None
    assert (tight.replicas(rates) >= loose.replicas(rates)).all()


CAPACITIES = st.lists(st.floats(0.1, 1e4), min_size=4, max_size=4).map(
    lambda each: ReplicaCapacity((1, 2, 4, 8), tuple(sorted(each)))
)


@given(capacity=CAPACITIES, rps=st.floats(0, 1e5), more=st.floats(1, 100))
def test_replicas_carry_the_rate_and_never_fall_with_it(
    capacity: ReplicaCapacity, rps: float, more: float
) -> None:
    few, many = capacity.replicas(np.array([rps, rps * more])).tolist()

    assert 1 <= few <= many
    assert few * capacity.rps_at(few) >= rps * (1 - 1e-8)
    assert few == 1 or (few - 1) * capacity.rps_at(few - 1) < rps


@pytest.mark.parametrize("rate", [-1.0, math.nan, math.inf])
def test_rates_that_are_none_are_refused(rate: float) -> None:
    with pytest.raises(EquipoiseError, match="rps"):
        flat_capacity(10).replicas(np.array([rate]))
