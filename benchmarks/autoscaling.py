"""Equipoise's autoscaling policy against Serve's default, over one day of traffic in virtual time.

Both policies' real code runs, wrapped as Serve wraps them; only the fleet, the traffic and the clock are
simulated. The replica is the bundle's own: its load curve comes from what the search measured of it.

The day has the usual swing and three flash crowds that triple the traffic within a minute. Each second,
Poisson arrivals meet the replicas that are up; what they cannot carry waits, or is refused once it would
wait over two seconds. A request is late where the 99th percentile of its second (load curve, and the queue
before it) is over the objective, refused ones among them.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import sys
import types
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.record import Measured, measured_here_and_now, write_result
from numpy.typing import NDArray

from equipoise.bundle import locate_bundle, open_bundle
from equipoise.config.cost import CostConfig
from equipoise.config.serving import ServingConfig
from equipoise.costs.capacity import ReplicaCapacity, plan_capacity
from equipoise.costs.profiles import load_profile
from equipoise.costs.replica_model import ReplicaModel, replay_p99_s, replica_model
from equipoise.errors import EquipoiseError
from equipoise.runs.records import Speed

DAY_S = 86_400
START_S = 10
"""Seconds until a replica answers: what `equipoise serve` took here, rounded up."""
MAX_REPLICAS = 64
MAX_WAIT_S = ServingConfig().max_wait_ms / 1000
CROWDS = ((9.5, 600), (13.0, 1200), (20.25, 300))
"""Flash crowds: hour of the day, and seconds."""
CROWD_FACTOR, CROWD_RAMP_S = 3.0, 60

FLEETS = (1, 2, 3, 4, 6, 8, 16, 32, 64)

Policy = Callable[[Any], tuple[Any, dict[str, Any]]]


@dataclass(frozen=True)
class Curve:
    """Latency of a replica by the rate that comes to it, in seconds."""

    rates: NDArray[np.float64]
    mean_s: NDArray[np.float64]
    p99_s: NDArray[np.float64]
    """(fleets, rates): more replicas share the arrivals more evenly."""
    throughput_rps: float

    def p99_at(self, rate: float, replicas: int) -> float:
        """The 99th percentile where so much comes to each of so many."""
        fleet = int(np.searchsorted(FLEETS, replicas, side="right")) - 1
        return float(np.interp(rate, self.rates, self.p99_s[fleet]))


@dataclass(frozen=True)
class Day:
    """What a policy made of the day."""

    late: int
    requests: int
    replica_hours: float
    most_replicas: int
    changes: int


def main(arguments: Sequence[str] | None = None) -> None:
    """Simulate, write `results/autoscaling.json` and print its path."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.autoscaling", description=__doc__)
    parser.add_argument("--bundle", default="runs/demo", help="run folder or bundle (default: %(default)s)")
    parser.add_argument("--rps", type=float, default=2000, help="mean rate (default: %(default)s)")
    parser.add_argument("--p99-ms", type=float, default=100, help="latency objective (default: %(default)s)")
    given = parser.parse_args(arguments)
    try:
        manifest = open_bundle(locate_bundle(Path(given.bundle))).manifest
        speed = Speed.model_validate(manifest.candidate["speed"])
        capacity = plan_capacity(speed, CostConfig(rps=given.rps, p99_ms=given.p99_ms))
        traffic = day_of_traffic(given.rps)
        curve = load_curve(replica_model(speed))
        objective_s = given.p99_ms / 1000
        default = simulate(traffic, curve, objective_s, *default_policy())
        tuned = simulate(traffic, curve, objective_s, *tuned_policy(curve, capacity))
        own = simulate(traffic, curve, objective_s, *own_policy(capacity))
    except EquipoiseError as error:
        sys.exit(f"benchmarks.autoscaling: {error}")
    for name, day in (("default", default), ("tuned default", tuned), ("load curve", own)):
        print(
            f"{name}: {day.replica_hours:.1f} replica-hours, {day.late} of {day.requests} requests late, "
            f"at most {day.most_replicas} replicas, {day.changes} changes"
        )
    figures = [
        Measured(
            "replica-hours, own policy over Serve's default",
            own.replica_hours / default.replica_hours,
            0.75,
            "lower",
        ),
        Measured(
            "late requests, share under the own policy",
            own.late / own.requests,
            default.late / default.requests,
            "lower",
        ),
        Measured(
            "replica-hours, own policy over Serve's with a target set by hand",
            own.replica_hours / tuned.replica_hours,
            1.0,
            "lower",
        ),
        Measured(
            "late requests, share under the own policy, beside that target's",
            own.late / own.requests,
            tuned.late / tuned.requests,
            "lower",
        ),
    ]
    command = f"python -m benchmarks.autoscaling --rps {given.rps:g} --p99-ms {given.p99_ms:g}"
    print(write_result("autoscaling", command, figures, measured_here_and_now()))


def day_of_traffic(mean_rps: float, seed: int = 13) -> NDArray[np.int64]:
    """Arrivals of each second of a day, (86400,)."""
    hours = load_profile("diurnal").means
    seconds = np.arange(DAY_S)
    rate = np.interp(seconds, (np.arange(25) + 0.5) * 3600, np.append(hours, hours[0]))
    for hour, lasts_s in CROWDS:
        since = seconds - hour * 3600
        up, down = since / CROWD_RAMP_S, (lasts_s - since) / CROWD_RAMP_S
        rate *= 1 + (CROWD_FACTOR - 1) * np.clip(np.minimum(up, down), 0, 1)
    arrivals: NDArray[np.int64] = np.random.default_rng(seed).poisson(mean_rps * rate / rate.mean())
    return arrivals


def load_curve(model: ReplicaModel, steps: int = 40) -> Curve:
    """The replica's latency at rates up to what it carries."""
    rates = model.throughput_rps * np.linspace(0.02, 0.98, steps)
    p99_s = replay_p99_s(model, np.tile(rates, len(FLEETS)), np.repeat(FLEETS, steps)).reshape(-1, steps)
    return Curve(
        rates, np.array([mean_latency_s(model, rate) for rate in rates]), p99_s, model.throughput_rps
    )


def mean_latency_s(model: ReplicaModel, rate: float, requests: int = 4000, seed: int = 0) -> float:
    """Mean of waiting and service where Poisson arrivals come to one replica."""
    generator = np.random.default_rng([seed, 9])
    arrivals = np.cumsum(generator.exponential(1 / rate, requests))
    noise = generator.standard_normal(requests)
    free, first, total = 0.0, 0, 0.0
    while first < requests:
        start = max(free, arrivals[first])
        rows = int(np.clip(np.searchsorted(arrivals, start, side="right") - first, 1, model.batch_size))
        free = start + float(model.batch_s(np.array([rows]), noise[first : first + 1])[0])
        total += rows * free - arrivals[first : first + rows].sum()
        first += rows
    return total / requests


def default_policy() -> tuple[Policy, Any, float]:
    """Serve's policy with Serve's own values, and the seconds that it looks back."""
    from ray.serve.autoscaling_policy import replica_queue_length_autoscaling_policy
    from ray.serve.config import AutoscalingConfig

    config = AutoscalingConfig(min_replicas=1, max_replicas=MAX_REPLICAS)
    return as_serve_wraps(replica_queue_length_autoscaling_policy), config, config.look_back_period_s


def tuned_policy(curve: Curve, capacity: ReplicaCapacity) -> tuple[Policy, Any, float]:
    """Serve's policy with the requests under way that the load curve has at the planned rate."""
    from ray.serve.autoscaling_policy import replica_queue_length_autoscaling_policy
    from ray.serve.config import AutoscalingConfig

    planned_rps = capacity.rps_at(1)
    under_way = planned_rps * float(np.interp(planned_rps, curve.rates, curve.mean_s))
    config = AutoscalingConfig(
        min_replicas=1, max_replicas=MAX_REPLICAS, target_ongoing_requests=max(under_way, 0.5)
    )
    return as_serve_wraps(replica_queue_length_autoscaling_policy), config, config.look_back_period_s


def own_policy(capacity: ReplicaCapacity) -> tuple[Policy, Any, float]:
    """The policy that `serving.max_replicas` turns on, as it is configured there."""
    from equipoise_serving.autoscaling import LoadCurvePolicy, autoscaling_config

    config = autoscaling_config(capacity, min_replicas=1, max_replicas=MAX_REPLICAS)
    policy = LoadCurvePolicy(**config.policy.policy_kwargs)
    return as_serve_wraps(policy), config, config.look_back_period_s


def as_serve_wraps(policy: Policy) -> Policy:
    """With the delays and factors of the config, which Serve lays around every policy."""
    from ray.serve import autoscaling_policy

    wrapped: Policy = autoscaling_policy._apply_autoscaling_config(policy)
    return wrapped


def simulate(
    traffic: NDArray[np.int64],
    curve: Curve,
    objective_s: float,
    policy: Policy,
    config: Any,
    look_back_s: float,
) -> Day:
    """One day under a policy.

    Args:
        traffic: (seconds,) arrivals.
        curve: the replica.
        objective_s: latency that the 99th percentile should keep.
        policy: called each second with Serve's own context.
        config: Serve's autoscaling config.
        look_back_s: seconds that the metrics are averaged over.
    """
    up, starting = 1, deque[int]()
    target, queue = 1, 0.0
    state: dict[str, Any] = {}
    late = changes = most = 0
    replica_seconds = 0
    recent: deque[tuple[float, float]] = deque(maxlen=int(look_back_s))
    # Each change is a line in a live log; here there are hundreds a second.
    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    with virtual_clock() as clock:
        for second, arrived in enumerate(traffic.tolist()):
            clock.now = float(second)
            while starting and starting[0] <= second:
                starting.popleft()
                up += 1
            each = arrived / up
            carried = min(each, curve.rates[-1])
            carries = up * curve.throughput_rps
            left = max(0.0, queue + arrived - carries)
            # What came last in this second waits for what was there before, or for what came with it.
            p99_s = curve.p99_at(carried, up) + max(queue, left) / carries
            late += arrived if p99_s > objective_s else 0
            under_way = queue + arrived * float(np.interp(carried, curve.rates, curve.mean_s))
            # A replica refuses what would wait longer; a refused request is late, and gone.
            queue = min(left, MAX_WAIT_S * carries)
            recent.append((under_way, arrived))
            replica_seconds += up + len(starting)
            means = np.mean(recent, axis=0)
            context = make_context(config, second, up, target, state, means[0], means[1])
            wanted, state = policy(context)
            wanted = int(np.clip(wanted, config.min_replicas, config.max_replicas))
            if wanted != target:
                changes += 1
                for _ in range(wanted - up - len(starting)):
                    starting.append(second + START_S)
                while up + len(starting) > wanted:
                    if starting:
                        starting.pop()
                    else:
                        up -= 1
                target = wanted
            most = max(most, up)
    return Day(late, int(traffic.sum()), replica_seconds / 3600, most, changes)


def make_context(
    config: Any, now: float, up: int, target: int, state: dict[str, Any], under_way: float, arrived: float
) -> Any:
    """Serve's own context, as its controller fills it."""
    from ray.serve._private.common import DeploymentID, ReplicaID
    from ray.serve.config import AutoscalingContext

    from equipoise_serving.autoscaling import ARRIVALS

    deployment = DeploymentID(name="Replica", app_name="benchmark")
    replicas = [ReplicaID(unique_id=str(number), deployment_id=deployment) for number in range(up)]
    return AutoscalingContext(
        deployment_id=deployment,
        deployment_name="Replica",
        app_name="benchmark",
        current_num_replicas=up,
        target_num_replicas=target,
        running_replicas=replicas,
        total_num_requests=float(under_way),
        total_queued_requests=0.0,
        aggregated_metrics={ARRIVALS: dict.fromkeys(replicas, float(arrived) / up)},
        raw_metrics=None,
        capacity_adjusted_min_replicas=config.min_replicas,
        capacity_adjusted_max_replicas=config.max_replicas,
        policy_state=dict(state),
        last_scale_up_time=None,
        last_scale_down_time=None,
        current_time=now,
        config=config,
    )


@contextmanager
def virtual_clock() -> Iterator[Any]:
    """`clock.now` is what Serve's delays take for the time."""
    autoscaling_policy: Any = importlib.import_module("ray.serve.autoscaling_policy")
    clock = types.SimpleNamespace(now=0.0)
    real = autoscaling_policy.time
    autoscaling_policy.time = types.SimpleNamespace(time=lambda: clock.now, monotonic=real.monotonic)
    try:
        yield clock
    finally:
        autoscaling_policy.time = real


if __name__ == "__main__":
    main()
