"""A priced candidate at another arrival rate: its serving term anew, every other term as it stands."""

from __future__ import annotations

from equipoise.config.cost import CostConfig
from equipoise.costs.lifecycle import HOURS_PER_MONTH, replicas_needed, serving_usd_per_1k
from equipoise.costs.price_book import PriceBook, replica_usd_per_hour
from equipoise.runs.records import CostTerms


def reprice_at(
    rps: float, terms: CostTerms, *, throughput_rps: float, cost: CostConfig, book: PriceBook
) -> CostTerms:
    """Cost terms at `rps` requests a second, over the horizon they were priced for.

    Args:
        rps: arrival rate, requests per second.
        terms: as priced at some rate; training, search, storage, data and maintenance depend on none.
        throughput_rps: measured requests per second of one replica.
        cost: the serving node, the reservation of a replica, and the share of its throughput that is
            planned with.
        book: the prices.

    Raises:
        ConfigError: the node is not in the price book, or a replica does not fit on it.
        EquipoiseError: a rate is not a positive, finite number.
    """
    replicas = replicas_needed(rps, throughput_rps * cost.target_utilization)
    usd_per_hour = replica_usd_per_hour(book, cost)
    serving_month = replicas * usd_per_hour * HOURS_PER_MONTH
    serving = serving_month * terms.horizon_months
    requests = rps * 3600 * HOURS_PER_MONTH * terms.horizon_months
    total = terms.total_usd - terms.compute_serving_usd + serving
    return terms.model_copy(
        update={
            "rps": rps,
            "replicas": replicas,
            "compute_serving_usd": serving,
            "serving_usd_per_1k": serving_usd_per_1k(replicas, usd_per_hour, rps),
            "total_usd_per_1k": total / requests * 1000,
            "serving_usd_month": serving_month,
        }
    )
