"""The simulator, on minutes instead of a day, with both policies' real code."""

from __future__ import annotations

import numpy as np
import pytest
from benchmarks.autoscaling import (
    CROWD_FACTOR,
    CROWDS,
    DAY_S,
    MAX_REPLICAS,
    START_S,
    Curve,
    day_of_traffic,
    default_policy,
    load_curve,
    mean_latency_s,
    own_policy,
    simulate,
    tuned_policy,
    virtual_clock,
)

from equipoise.costs.capacity import flat_capacity
from equipoise.costs.replica_model import ReplicaModel

MODEL = ReplicaModel(single_s=0.003, further_s=0.002, spread=0.1, batch_size=16)
CAPACITY = flat_capacity(350.0)


@pytest.fixture(scope="module")
def curve() -> Curve:
    return load_curve(MODEL, steps=10)


def test_the_day_has_its_mean_its_crowds_and_a_quiet_night() -> None:
    traffic = day_of_traffic(50.0)
    assert traffic.shape == (DAY_S,)
    assert traffic.mean() == pytest.approx(50.0, rel=0.01)
    hour, lasts_s = CROWDS[0]
    start = int(hour * 3600)
    crowd = traffic[start + 60 : start + lasts_s - 60].mean()
    assert crowd / traffic[start - 300 : start].mean() == pytest.approx(CROWD_FACTOR, rel=0.1)
    assert traffic[4 * 3600 : 5 * 3600].mean() < 25


def test_latency_rises_with_the_rate(curve: Curve) -> None:
    assert (np.diff(curve.mean_s) > 0).all()
    assert curve.mean_s[0] == pytest.approx(0.003, rel=0.2)
    assert (curve.p99_s[0] > curve.mean_s).all()
    assert mean_latency_s(MODEL, 400.0) > mean_latency_s(MODEL, 100.0)


def test_a_fleet_that_is_given_is_counted_by_the_second(curve: Curve) -> None:
    traffic = np.full(100, 10, dtype=np.int64)
    config = own_policy(CAPACITY)[1]
    day = simulate(traffic, curve, 1.0, lambda ctx: (1, {}), config, 5)
    assert (day.late, day.requests, day.changes) == (0, 1000, 0)
    assert day.replica_hours == pytest.approx(100 / 3600)


def test_more_than_the_fleet_carries_is_late_until_the_queue_is_gone(curve: Curve) -> None:
    traffic = np.array([2000] + [10] * 30, dtype=np.int64)
    config = own_policy(CAPACITY)[1]
    day = simulate(traffic, curve, 0.5, lambda ctx: (1, {}), config, 5)
    assert 2000 <= day.late < 2100


def test_a_replica_serves_only_once_it_has_started(curve: Curve) -> None:
    traffic = np.full(60, 700, dtype=np.int64)
    config = own_policy(CAPACITY)[1]
    day = simulate(traffic, curve, 0.2, lambda ctx: (4, {}), config, 5)
    assert day.late >= 700 * START_S
    assert day.most_replicas == 4


def test_both_policies_decide_and_the_own_one_is_sooner(curve: Curve) -> None:
    traffic = np.concatenate([np.full(120, 100), np.full(400, 1500), np.full(200, 100)]).astype(np.int64)
    days = {
        name: simulate(traffic, curve, 0.1, *policy)
        for name, policy in {
            "default": default_policy(),
            "tuned": tuned_policy(curve, CAPACITY),
            "own": own_policy(CAPACITY),
        }.items()
    }
    assert all(1 < day.most_replicas <= MAX_REPLICAS for day in days.values())
    assert days["own"].late < min(days["default"].late, days["tuned"].late)
    assert days["own"].replica_hours < days["default"].replica_hours


def test_serve_s_delays_go_by_the_virtual_clock() -> None:
    import ray.serve.autoscaling_policy as policy_module

    real = policy_module.time
    with virtual_clock() as clock:
        clock.now = 12.0
        assert policy_module.time.time() == 12.0
    assert policy_module.time is real
