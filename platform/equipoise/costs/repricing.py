"""A priced candidate at another arrival rate: its serving term anew, every other term as it stands."""

from __future__ import annotations

from equipoise.config.cost import CostConfig
from equipoise.costs.capacity import ReplicaCapacity, flat_capacity
from equipoise.costs.price_book import PriceBook
from equipoise.costs.serving_plan import HOURS_PER_MONTH, plan_serving
from equipoise.runs.records import CostTerms


def reprice_at(
    rps: float,
    terms: CostTerms,
    *,
    throughput_rps: float,
    cost: CostConfig,
    book: PriceBook,
    capacity: ReplicaCapacity | None = None,
) -> CostTerms:
    """Cost terms at `rps` requests a second, over the horizon they were priced for.

    Args:
        rps: arrival rate, requests per second.
        terms: as priced at some rate; training, search, storage, data and maintenance depend on none.
        throughput_rps: measured requests per second of one replica.
        cost: the serving node, the reservation of a replica, and the share of its throughput that is
            planned with.
        book: the prices.
        capacity: what a replica carries at the latency objective (`plan_capacity`); by default that
            share of its throughput.

    Raises:
        ConfigError: the node is not in the price book, or a replica does not fit on it.
        EquipoiseError: a rate is not a positive, finite number.
    """
    plan = plan_serving(
        cost.model_copy(update={"rps": rps}),
        book,
        capacity or flat_capacity(throughput_rps * cost.target_utilization),
    )
    serving = plan.usd_month * terms.horizon_months
    requests = rps * 3600 * HOURS_PER_MONTH * terms.horizon_months
    total = terms.total_usd - terms.compute_serving_usd + serving
    return terms.model_copy(
        update={
            "rps": rps,
            "profile": cost.profile,
            "p99_ms": capacity.p99_ms if capacity else None,
            "capacity_rps": plan.capacity_rps,
            "replicas": plan.peak_replicas,
            "mean_replicas": plan.mean_replicas,
            "compute_serving_usd": serving,
            "serving_usd_per_1k": plan.usd_per_1k,
            "total_usd_per_1k": total / requests * 1000,
            "serving_usd_month": plan.usd_month,
            "node_idle_usd_month": plan.node_idle_usd_month,
        }
    )
