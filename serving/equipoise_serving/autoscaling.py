"""A Serve autoscaling policy that turns the measured load curve into replicas.

Serve's own policy looks at how many requests are under way and waits half a minute before it adds and
ten before it takes away. This one looks at how many arrive, and asks the candidate's load curve how many
replicas carry that within the latency objective: it knows the answer before any queue has grown.
"""

from __future__ import annotations

import logging
import math
import warnings
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from equipoise.costs.capacity import ReplicaCapacity

if TYPE_CHECKING:
    from ray.serve.config import AutoscalingConfig, AutoscalingContext

IMPORT_PATH = "equipoise_serving.autoscaling:LoadCurvePolicy"
ARRIVALS = "arrival_rps"
"""What each replica reports of itself: rows a second that came to it."""
LOOK_BACK_S = 5.0
_TREND_S = 30.0
"""Rates of so long tell where the traffic is going."""
_DEVIATIONS = 2.0
"""The arrivals of one second scatter by the root of their number; so many roots are planned for."""
_log = logging.getLogger("ray.serve")


@dataclass(frozen=True)
class Decision:
    """How many replicas, and why."""

    replicas: int
    reason: str
    """start, grow, backlog, shrink, idle, hold or cap."""
    detail: str


class LoadCurvePolicy:
    """Enough replicas for the arrival rate at the latency objective, and no more.

    Serve makes it once and calls it with each round of its control loop.

    Args:
        counts: sizes of fleet of the load curve, rising from 1.
        rps_each: requests a second of each replica in a fleet of that size.
        start_s: seconds that a replica takes to start; traffic is looked ahead by as much.
        hold_s: replicas leave once they were not needed for so long.
        idle_s: the last replica leaves after so long without a request, where the minimum is 0.
        max_usd_per_hour: most that the replicas may cost; None sets no limit.
        usd_per_hour: price of a replica, for the limit.
    """

    def __init__(
        self,
        counts: Sequence[int],
        rps_each: Sequence[float],
        start_s: float = 10.0,
        hold_s: float = 60.0,
        idle_s: float = 300.0,
        max_usd_per_hour: float | None = None,
        usd_per_hour: float = 0.0,
    ) -> None:
        self._capacity = ReplicaCapacity(tuple(counts), tuple(rps_each))
        self._start_s, self._hold_s, self._idle_s = start_s, hold_s, idle_s
        self._affordable: float = math.inf
        if max_usd_per_hour is not None and usd_per_hour > 0:
            self._affordable = math.floor(max_usd_per_hour / usd_per_hour + 1e-9)
        self._rates: deque[tuple[float, float]] = deque()
        self._needs: deque[tuple[float, int]] = deque()
        self._asked_at: float | None = None
        self._last: Decision | None = None
        self._exported: _Export | None = None

    def __call__(self, ctx: AutoscalingContext) -> tuple[int, dict[str, Any]]:
        """Replicas to have, and Serve's own state, which this policy leaves alone."""
        now = float(ctx.current_time or 0.0)
        by_replica = (ctx.aggregated_metrics or {}).get(ARRIVALS, {})
        decision = self.decide(
            now,
            rps=sum(by_replica.values()),
            waiting=float(ctx.total_num_requests),
            target=int(ctx.target_num_replicas),
            least=int(ctx.capacity_adjusted_min_replicas),
            most=int(ctx.capacity_adjusted_max_replicas),
        )
        if decision.replicas != ctx.target_num_replicas:
            _log.warning(
                "autoscaling %s: %d replicas to %d, %s: %s",
                ctx.deployment_name,
                ctx.target_num_replicas,
                decision.replicas,
                decision.reason,
                decision.detail,
            )
        self._export(ctx, decision)
        self._last = decision
        return decision.replicas, dict(ctx.policy_state)

    def decide(
        self, now: float, *, rps: float, waiting: float, target: int, least: int, most: int
    ) -> Decision:
        """Replicas to have.

        Args:
            now: seconds, of any clock that only rises.
            rps: rows a second that arrive, over the last LOOK_BACK_S.
            waiting: requests under way, queued ones among them.
            target: replicas asked for before.
            least: bounds of the deployment; `most` likewise.
        """
        if rps > 0 or waiting > 0 or self._asked_at is None:
            self._asked_at = now
        if target == 0:
            count = max(1, least) if waiting > 0 else least
            return self._bounded(
                Decision(count, "start" if count else "idle", f"{waiting:g} wait"), least, most
            )
        expected = self._expect(now, rps)
        need = int(self._capacity.replicas(np.array([expected]))[0])
        detail = f"{rps:.1f} rows/s, {expected:.1f} expected in {self._start_s:g} s"
        reason = "grow"
        # What waits beyond what is under way at any time was too much for the fleet: it is worked off
        # within the time that a replica takes to start.
        each = self._capacity.rps_at(max(need, 1))
        backlog = waiting - 2 * target
        if backlog > each * target * 0.1:
            extra = math.ceil(backlog / (each * self._start_s))
            if need + extra > target:
                need, reason, detail = need + extra, "backlog", f"{detail}, {backlog:.0f} wait"
        self._needs.append((now, need))
        while self._needs[0][0] < now - self._hold_s:
            self._needs.popleft()
        if least == 0 and now - self._asked_at >= self._idle_s:
            return Decision(0, "idle", f"no request for {self._idle_s:g} s")
        if need > target:
            return self._bounded(Decision(need, reason, detail), least, most)
        held = max(1, *(count for _, count in self._needs)) if len(self._needs) > 1 else target
        whole_hold = now - self._needs[0][0] >= 0.9 * self._hold_s
        if held < target and whole_hold:
            return self._bounded(
                Decision(held, "shrink", f"{detail}, none more needed for long"), least, most
            )
        return self._bounded(Decision(target, "hold", detail), least, most)

    def _expect(self, now: float, rps: float) -> float:
        """Arrivals a second when a replica asked for now would be up: the rate, its rise, and its scatter."""
        self._rates.append((now, rps))
        while self._rates[0][0] < now - _TREND_S:
            self._rates.popleft()
        times, rates = np.array(self._rates).T
        rise = 0.0
        if len(times) > 3 and times[-1] - times[0] >= _TREND_S / 2:
            rise = float(np.polyfit(times - now, rates, 1)[0])
        scatter = _DEVIATIONS * math.sqrt(max(rps, 0.0))
        return max(0.0, rps) + max(0.0, rise) * self._start_s + scatter

    def _bounded(self, decision: Decision, least: int, most: int) -> Decision:
        limit = int(min(most, max(self._affordable, least)))
        if decision.replicas > limit:
            why = "max_usd_per_hour" if limit < most else "max_replicas"
            return Decision(
                limit, "cap", f"{decision.detail}; {decision.replicas} needed, {why} allows {limit}"
            )
        return Decision(max(decision.replicas, least), decision.reason, decision.detail)

    def _export(self, ctx: AutoscalingContext, decision: Decision) -> None:
        try:
            if self._exported is None:
                self._exported = _Export(str(ctx.deployment_name))
            self._exported.put(decision, int(ctx.target_num_replicas))
        except Exception:  # noqa: BLE001 - whatever it is, see below
            # A policy that raises stops the scaling; a metric is not worth that.
            _log.exception("an autoscaling decision was not exported")


class _Export:
    """`equipoise_autoscaling_decisions_total{deployment,reason}` and `equipoise_autoscaling_replicas`."""

    def __init__(self, deployment: str) -> None:
        from ray.util.metrics import Counter, Gauge

        self._deployment = deployment
        self._decisions = Counter(
            "equipoise_autoscaling_decisions",
            description="Changes of the number of replicas, by reason.",
            tag_keys=("deployment", "reason"),
        )
        self._replicas = Gauge(
            "equipoise_autoscaling_replicas", description="Replicas asked for.", tag_keys=("deployment",)
        )

    def put(self, decision: Decision, target: int) -> None:
        self._replicas.set(decision.replicas, tags={"deployment": self._deployment})
        if decision.replicas != target:
            self._decisions.inc(tags={"deployment": self._deployment, "reason": decision.reason})


def autoscaling_config(
    capacity: ReplicaCapacity,
    *,
    min_replicas: int,
    max_replicas: int,
    usd_per_hour: float = 0.0,
    max_usd_per_hour: float | None = None,
) -> AutoscalingConfig:
    """Serve's config of the policy; the delays are the policy's own, so Serve's are 0."""
    from ray.serve.config import AutoscalingConfig, AutoscalingPolicy

    with warnings.catch_warnings():
        # Serve warns of `metrics_interval_s`, and reads it still.
        warnings.simplefilter("ignore", DeprecationWarning)
        return AutoscalingConfig(
            min_replicas=min_replicas,
            initial_replicas=max(1, min_replicas),
            max_replicas=max_replicas,
            metrics_interval_s=1.0,
            look_back_period_s=LOOK_BACK_S,
            upscale_delay_s=0.0,
            downscale_delay_s=0.0,
            policy=AutoscalingPolicy(  # type: ignore[no-untyped-call]
                policy_function=IMPORT_PATH,
                policy_kwargs={
                    "counts": list(capacity.counts),
                    "rps_each": list(capacity.rps_each),
                    "usd_per_hour": usd_per_hour,
                    "max_usd_per_hour": max_usd_per_hour,
                },
            ),
        )
