"""The collector: reads its sources at each scrape, and says of each whether it could."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from equipoise.errors import InputError, RetryableError
from equipoise.exporter.ledger_totals import LedgerTotals
from equipoise.exporter.served_totals import ServedTotals, read_served_totals
from equipoise.exporter.serving_price import ServingPrice, read_serving_price

_log = logging.getLogger(__name__)


class CostCollector(Collector):
    """Cost of a run and of what serves its choice.

    Args:
        run_location: the run folder, a path or URI.
        ray_metrics_url: Ray's metrics page; None where nothing is served.
    """

    def __init__(self, run_location: str, ray_metrics_url: str | None) -> None:
        self._run_location = run_location
        self._ray_metrics_url = ray_metrics_url
        self._ledger = LedgerTotals(run_location)
        self._price: ServingPrice | None = None
        self._served = ServedTotals()
        # Scrapes may overlap: the endpoint answers each in a thread of its own.
        self._lock = threading.Lock()

    def collect(self) -> Iterator[Metric]:
        """The metric families, freshly read."""
        with self._lock:
            up = {"ledger": _try(self._ledger.refresh), "config": _try(self._read_price)}
            if self._ray_metrics_url is not None:
                up["ray"] = _try(self._read_served)
            families = [*self._cost(), *self._serving(up.get("ray", False)), _up(up)]
        yield from families

    def _read_price(self) -> None:
        if self._price is None:
            self._price = read_serving_price(self._run_location)

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
