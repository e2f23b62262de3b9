"""The policy's decisions, without a cluster."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from equipoise_serving.autoscaling import Decision, LoadCurvePolicy, autoscaling_config
from equipoise_serving.replica import ArrivalRate

EACH = 100.0
BOUNDS = {"least": 1, "most": 20}


def follow(policy: LoadCurvePolicy, rates: Iterable[float], target: int, **bounds: int) -> list[Decision]:
    """A decision a second, each one carried out at once."""
    found = []
    for second, rps in enumerate(rates):
        found.append(policy.decide(second, rps=rps, waiting=1.0, target=target, **(BOUNDS | bounds)))
        target = found[-1].replicas
    return found


def test_replicas_follow_the_rate_without_waiting_for_a_queue() -> None:
    decisions = follow(LoadCurvePolicy([1], [EACH]), [50.0, 350.0], target=1)
    assert [(each.replicas, each.reason) for each in decisions] == [(1, "hold"), (4, "grow")]
    assert "350.0 rows/s" in decisions[1].detail


def test_a_rise_is_looked_ahead_by_the_time_that_a_replica_takes_to_start() -> None:
    rates = [100.0 + 5 * second for second in range(40)]
    ahead = follow(LoadCurvePolicy([1], [EACH], start_s=20.0), rates, target=2)[-1]
    level = follow(LoadCurvePolicy([1], [EACH], start_s=20.0), [rates[-1]] * 40, target=2)[-1]
    assert (level.replicas, ahead.replicas) == (4, 5)


def test_replicas_leave_once_none_of_them_was_needed_for_the_hold() -> None:
    rates = [350.0] * 70 + [50.0] * 70
    decisions = follow(LoadCurvePolicy([1], [EACH], hold_s=60), rates, target=4)
    counts = [each.replicas for each in decisions]
    assert counts[:130] == [4] * 130
    assert counts[-1] == 1
    assert next(each.reason for each in decisions if each.replicas < 4) == "shrink"


def test_a_swing_within_the_hold_changes_nothing() -> None:
    rates = itertools.islice(itertools.cycle([350.0] * 20 + [50.0] * 20), 400)
    counts = [each.replicas for each in follow(LoadCurvePolicy([1], [EACH]), rates, target=4)]
    assert max(counts[100:]) == min(counts[100:])


def test_a_backlog_gets_replicas_beyond_the_rate() -> None:
    policy = LoadCurvePolicy([1], [EACH], start_s=10)
    found = policy.decide(0, rps=80.0, waiting=3000.0, target=1, **BOUNDS)
    assert (found.replicas, found.reason) == (4, "backlog")


def test_larger_fleets_carry_more_each() -> None:
    policy = LoadCurvePolicy([1, 4], [50.0, 100.0])
    assert policy.decide(0, rps=330.0, waiting=1, target=1, **BOUNDS).replicas == 4


@pytest.mark.parametrize(
    ("rps", "most", "limit_usd", "replicas", "why"),
    [(900.0, 4, None, 4, "max_replicas"), (900.0, 20, 1.0, 5, "max_usd_per_hour"), (100.0, 4, 1.0, 2, "")],
)
def test_the_caps_hold_and_say_so(
    rps: float, most: int, limit_usd: float | None, replicas: int, why: str
) -> None:
    policy = LoadCurvePolicy([1], [EACH], max_usd_per_hour=limit_usd, usd_per_hour=0.2)
    found = policy.decide(0, rps=rps, waiting=1, target=1, least=1, most=most)
    assert found.replicas == replicas
    assert why in found.detail
    assert (found.reason == "cap") is bool(why)


def test_the_last_replica_leaves_when_nobody_asks_and_comes_back_when_someone_does() -> None:
    policy = LoadCurvePolicy([1], [EACH], idle_s=30)
    none = {"rps": 0.0, "waiting": 0.0, "least": 0, "most": 3}
    assert policy.decide(0, target=1, **none).replicas == 1
    assert policy.decide(29, target=1, **none).replicas == 1
    assert policy.decide(30, target=1, **none) == Decision(0, "idle", "no request for 30 s")
    assert policy.decide(31, target=0, **none).replicas == 0
    assert policy.decide(32, target=0, **(none | {"waiting": 1.0})).replicas == 1


@given(
    st.lists(st.tuples(st.floats(0, 1e5), st.floats(0, 1e5)), min_size=1, max_size=80),
    st.integers(1, 5),
    st.integers(5, 50),
)
def test_decisions_stay_within_the_bounds(steps: list[tuple[float, float]], least: int, most: int) -> None:
    policy, target = LoadCurvePolicy([1, 8], [10.0, 12.0]), least
    for second, (rps, waiting) in enumerate(steps):
        found = policy.decide(second, rps=rps, waiting=waiting, target=target, least=least, most=most)
        assert least <= found.replicas <= most
        target = found.replicas


def test_serve_s_config_names_the_policy_and_leaves_the_delays_to_it() -> None:
    from equipoise.costs.capacity import flat_capacity

    config = autoscaling_config(flat_capacity(EACH), min_replicas=1, max_replicas=4)
    assert config.upscale_delay_s == config.downscale_delay_s == 0
    made = config.policy.get_policy()(**config.policy.policy_kwargs)
    assert made.decide(0, rps=250.0, waiting=1, target=1, least=1, most=4).replicas == 3


def test_the_arrival_rate_counts_from_one_question_to_the_next() -> None:
    arrivals = ArrivalRate(now=10.0)
    arrivals.rows += 30
    assert arrivals.rate(12.0) == 15.0
    assert arrivals.rate(13.0) == 0.0
