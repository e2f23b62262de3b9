"""The collector: reads its sources at each scrape, and says of each whether it could."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from equipoise.errors import InputError, RetryableError
from equipoise.exporter.ledger_totals import LedgerTotals
from equipoise.exporter.minutes import DAY_MINUTES, Minute, idle_share
from equipoise.exporter.run_plan import RunPlan, read_run_plan
from equipoise.exporter.served_totals import ServedTotals, read_served_totals
from equipoise.exporter.serving_price import ServingPrice, read_serving_price

WINDOWS = {"5m": 5, "1h": 60, "1d": DAY_MINUTES}
"""Windows of the figures that have one, in minutes."""

_log = logging.getLogger(__name__)


class CostCollector(Collector):
    """Cost of a run and of what serves its choice.

    Args:
        run_location: the run folder, a path or URI.
        ray_metrics_url: Ray's metrics page; None where nothing is served.
        clock: seconds since the epoch.
    """

    def __init__(
        self, run_location: str, ray_metrics_url: str | None, clock: Callable[[], float] = time.time
    ) -> None:
        self._run_location = run_location
        self._ray_metrics_url = ray_metrics_url
        self._ledger = LedgerTotals(run_location)
        self._price: ServingPrice | None = None
        self._served = ServedTotals()
        self._plan: RunPlan | None = None
        self._clock = clock
        self._old_saved_usd = 0.0
        # Scrapes may overlap: the endpoint answers each in a thread of its own.
        self._lock = threading.Lock()

    def collect(self) -> Iterator[Metric]:
        """The metric families, freshly read."""
        with self._lock:
            up = {
                "ledger": _try(self._ledger.refresh),
                "config": _try(self._read_price),
                "records": _try(self._read_plan),
            }
            if self._ray_metrics_url is not None:
                up["ray"] = _try(self._read_served)
            self._drop_old_minutes()
            families = [
                *self._cost(),
                *self._windows(),
                *self._decided(),
                *self._serving(up.get("ray", False)),
                _up(up),
            ]
        yield from families

    def _read_price(self) -> None:
        if self._price is None:
            self._price = read_serving_price(self._run_location)

    def _read_plan(self) -> None:
        self._plan = read_run_plan(self._run_location)

    def _drop_old_minutes(self) -> None:
        def keep_sum(minute: Minute) -> None:
            if self._plan is not None:
                self._old_saved_usd += self._plan.saved_usd(minute)

        oldest = math.floor(self._clock() / 60) - DAY_MINUTES
        self._ledger.minutes.drop_before(oldest, keep_sum)

    def _windows(self) -> Iterator[Metric]:
        per_1k = GaugeMetricFamily(
            "equipoise_usd_per_1k_requests",
            "Dollars of the replicas per 1,000 requests that they answered; see the rate beside it.",
            labels=["run", "model", "window"],
        )
        rate = GaugeMetricFamily(
            "equipoise_answered_requests_per_second",
            "Requests a second that the replicas answered.",
            labels=["run", "model", "window"],
        )
        idle = GaugeMetricFamily(
            "equipoise_idle_share",
            "Share of the nodes' dollars that nobody claimed.",
            labels=["run", "window"],
        )
        run = self._ledger.run_id
        for window, minutes in WINDOWS.items():
            kept = self._ledger.minutes.last(minutes, self._clock())
            usd: dict[str, float] = {}
            requests: dict[str, float] = {}
            for minute in kept:
                for model, served in minute.served.items():
                    usd[model] = usd.get(model, 0.0) + served.usd
                    requests[model] = requests.get(model, 0.0) + served.requests
            for model, count in sorted(requests.items()):
                rate.add_metric([run, model, window], count / (minutes * 60))
                if count > 0:
                    per_1k.add_metric([run, model, window], usd[model] / count * 1000)
            share = idle_share(kept)
            if share is not None:
                idle.add_metric([run, window], share)
        yield from (per_1k, rate, idle)

    def _decided(self) -> Iterator[Metric]:
        plan = self._plan
        if plan is None:
            return
        saved = self._old_saved_usd + sum(map(plan.saved_usd, self._ledger.minutes.kept.values()))
        for name, meaning, value in (
            ("equipoise_frontier_size", "Candidates on the frontier.", plan.frontier_size),
            (
                "equipoise_estimated_usd_per_1k",
                "What serving the choice was priced at per 1,000 requests, at the declared traffic.",
                plan.estimated_usd_per_1k,
            ),
            (
                "equipoise_planned_usd_per_hour",
                "What serving the choice was priced at an hour, at the declared traffic.",
                plan.planned_usd_per_hour,
            ),
            (
                "equipoise_saved_usd",
                "What the teacher's replicas for the same requests would have cost, less what was billed.",
                saved,
            ),
        ):
            family = GaugeMetricFamily(name, meaning, labels=["run", "model"])
            family.add_metric([plan.run, plan.run], value)
            yield family

    def _read_served(self) -> None:
        self._served = read_served_totals(self._ray_metrics_url or "")

    def _cost(self) -> Iterator[Metric]:
        cost = CounterMetricFamily(
            "equipoise_cost_usd",
            "Dollars that the ledger has billed.",
            labels=["run", "component", "term", "basis"],
        )
        for key, usd in sorted(self._ledger.usd.items()):
            cost.add_metric(list(key), usd)
        yield cost
        yield CounterMetricFamily(
            "equipoise_ledger_unreadable_lines",
            "Ledger lines that could not be read and are in no sum.",
            value=self._ledger.unreadable_lines,
        )

    def _serving(self, fresh: bool) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            "equipoise_requests", "Inference requests, by HTTP status.", labels=["model", "status"]
        )
        busy = CounterMetricFamily(
            "equipoise_busy_seconds", "Seconds that tokenizer and engine were busy.", labels=["model"]
        )
        price = GaugeMetricFamily(
            "equipoise_serving_usd_per_1k",
            "Dollars per 1,000 requests at the stated arrival rate, idle time included.",
            labels=["model", "rps", "basis"],
        )
        served = self._served if fresh else ServedTotals()
        for (model, status), count in sorted(served.requests.items()):
            requests.add_metric([model, status], count)
        for model, seconds in sorted(served.busy_seconds.items()):
            busy.add_metric([model], seconds)
            usd = self._price.usd_per_1k(seconds, served.successful(model)) if self._price else None
            if self._price is not None and usd is not None:
                price.add_metric([model, f"{self._price.rps:g}", "measured"], usd)
        yield from (requests, busy, price)


def _try(read: Callable[[], None]) -> bool:
    try:
        read()
    except (InputError, RetryableError) as error:
        _log.warning("%s", error)
        return False
    return True


def _up(sources: dict[str, bool]) -> Metric:
    family = GaugeMetricFamily(
        "equipoise_exporter_up", "Whether a source could be read at this scrape.", labels=["source"]
    )
    for source, up in sources.items():
        family.add_metric([source], float(up))
    return family
