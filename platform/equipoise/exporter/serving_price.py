"""What serving costs by what was metered, at the run's own traffic and prices."""

from __future__ import annotations

from dataclasses import dataclass

from equipoise.config import RunConfig, validate_config
from equipoise.config.cost import CostConfig
from equipoise.costs.capacity import flat_capacity
from equipoise.costs.price_book import PriceBook, load_prices, replica_usd_per_hour
from equipoise.costs.profiles import TrafficProfile, load_profile
from equipoise.costs.serving_plan import plan_serving
from equipoise.runs import RunFolder


@dataclass(frozen=True)
class ServingPrice:
    """Traffic and prices of a run."""

    cost: CostConfig
    book: PriceBook
    profile: TrafficProfile

    @property
    def rps(self) -> float:
        """The run's declared arrival rate."""
        return self.cost.rps

    def usd_per_1k(self, busy_seconds: float, requests: float) -> float | None:
        """Dollars per 1,000 requests of whole replicas that carry `rps`; None before any request.

        The metered capacity stands for the measured one; a latency objective is not looked at.

        Args:
            busy_seconds: seconds that the model was busy with `requests`.
            requests: successful requests.
        """
        if busy_seconds <= 0 or requests <= 0:
            return None
        capacity_rps = self.cost.target_utilization * requests / busy_seconds
        return plan_serving(self.cost, self.book, flat_capacity(capacity_rps), self.profile).usd_per_1k


def read_serving_price(run_location: str) -> ServingPrice:
    """From the run folder's `config.json` and the price book it names.

    Raises:
        RunFolderError: there is no `config.json`.
        InputError: it cannot be used, or the price book cannot.
    """
    folder = RunFolder(run_location)
    config = validate_config(RunConfig, folder.read("config.json"), where=folder.path("config.json"))
    book = load_prices(config.cost)
    replica_usd_per_hour(book, config.cost)
    return ServingPrice(config.cost, book, load_profile(config.cost.profile))
