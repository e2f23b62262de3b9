"""What a candidate costs over its life: compute, storage, data and maintenance. Arithmetic only."""

from __future__ import annotations

from equipoise.config.cost import CostConfig
from equipoise.costs.capacity import ReplicaCapacity, flat_capacity
from equipoise.costs.price_book import PriceBook, core_second_usd
from equipoise.costs.profiles import TrafficProfile
from equipoise.costs.serving_plan import HOURS_PER_MONTH, plan_serving, replicas_needed, serving_usd_per_1k
from equipoise.runs.records import CostTerms

__all__ = ["HOURS_PER_MONTH", "price_candidate", "replicas_needed", "serving_usd_per_1k"]

_BYTES_PER_GB = 1e9


def price_candidate(
    *,
    cost: CostConfig,
    book: PriceBook,
    throughput_rps: float,
    stored_bytes: int,
    training_core_seconds: float,
    retraining_core_seconds: float | None = None,
    search_core_seconds: float,
    labelled_rows: int,
    capacity: ReplicaCapacity | None = None,
    profile: TrafficProfile | None = None,
) -> CostTerms:
    """The four cost terms of a candidate over the horizon, in dollars, at the config's traffic.

    Args:
        cost: traffic, horizon and reservations.
        book: the prices.
        throughput_rps: measured requests per second of one replica; `cost.target_utilization` of it
            is planned with.
        stored_bytes: bytes kept over the whole horizon.
        training_core_seconds: core-seconds of making this candidate outside the search.
        retraining_core_seconds: core-seconds of making it once more, its distillation included; by
            default as much as the first time.
        search_core_seconds: core-seconds of the search it came out of; 0 for the teacher, which
            needs none.
        labelled_rows: labels paid for where `cost.labelled_rows` is unset.
        capacity: what a replica carries at the latency objective (`plan_capacity`); by default
            `cost.target_utilization` of `throughput_rps`, whatever the objective.
        profile: the profile of `cost.profile`, where it has been read already.

    Raises:
        ConfigError: a node is not in the price book, a replica does not fit on it, or the profile is
            unknown.
        EquipoiseError: the throughput is not a positive, finite number.
    """
    core_second = core_second_usd(book, cost.training_node or cost.node)
    training = training_core_seconds * core_second
    search = search_core_seconds * core_second

    plan = plan_serving(
        cost, book, capacity or flat_capacity(throughput_rps * cost.target_utilization), profile
    )
    serving = plan.usd_month * cost.horizon_months

    storage = stored_bytes / _BYTES_PER_GB * book.storage_usd_per_gb_month * cost.horizon_months
    rows = labelled_rows if cost.labelled_rows is None else cost.labelled_rows
    data = rows * book.label.usd_per_label
    people = cost.engineer_hours_per_month * book.engineer.usd_per_hour * cost.horizon_months
    retrainings = cost.retrainings_per_year * cost.horizon_months / 12
    again = training if retraining_core_seconds is None else retraining_core_seconds * core_second
    maintenance = people + retrainings * again

    requests = cost.rps * 3600 * HOURS_PER_MONTH * cost.horizon_months
    total = training + search + serving + storage + data + maintenance
    return CostTerms(
        rps=cost.rps,
        horizon_months=cost.horizon_months,
        profile=cost.profile,
        p99_ms=capacity.p99_ms if capacity else None,
        capacity_rps=plan.capacity_rps,
        replicas=plan.peak_replicas,
        mean_replicas=plan.mean_replicas,
        compute_training_usd=training,
        compute_search_usd=search,
        compute_serving_usd=serving,
        storage_usd=storage,
        data_usd=data,
        maintenance_usd=maintenance,
        serving_usd_per_1k=plan.usd_per_1k,
        total_usd_per_1k=total / requests * 1000,
        serving_usd_month=plan.usd_month,
        node_idle_usd_month=plan.node_idle_usd_month,
    )
