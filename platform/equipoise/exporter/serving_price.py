"""What serving costs by what was metered, at the run's own traffic and prices."""

from __future__ import annotations

from dataclasses import dataclass

from equipoise.config import RunConfig, validate_config
from equipoise.costs.lifecycle import replicas_needed, serving_usd_per_1k
from equipoise.costs.price_book import load_prices, replica_usd_per_hour
from equipoise.runs import RunFolder


@dataclass(frozen=True)
class ServingPrice:
    """Arrival rate, planned utilization and replica price of a run."""

    rps: float
    target_utilization: float
    usd_per_hour: float
    """Of one replica."""

    def usd_per_1k(self, busy_seconds: float, requests: float) -> float | None:
        """Dollars per 1,000 requests of whole replicas that carry `rps`; None before any request.

        Args:
            busy_seconds: seconds that the model was busy with `requests`.
            requests: successful requests.
        """
        if busy_seconds <= 0 or requests <= 0:
            return None
        capacity_rps = self.target_utilization * requests / busy_seconds
        return serving_usd_per_1k(replicas_needed(self.rps, capacity_rps), self.usd_per_hour, self.rps)


def read_serving_price(run_location: str) -> ServingPrice:
    """From the run folder's `config.json` and the price book it names.

    Raises:
        RunFolderError: there is no `config.json`.
        InputError: it cannot be used, or the price book cannot.
    """
    folder = RunFolder(run_location)
    config = validate_config(RunConfig, folder.read("config.json"), where=folder.path("config.json"))
    return ServingPrice(
        rps=config.cost.rps,
        target_utilization=config.cost.target_utilization,
        usd_per_hour=replica_usd_per_hour(load_prices(config.cost), config.cost),
    )
