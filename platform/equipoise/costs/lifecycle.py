"""What a candidate costs over its life: compute, storage, data and maintenance. Arithmetic only."""

from __future__ import annotations

import math

from equipoise.config.cost import CostConfig
from equipoise.costs.price_book import PriceBook, core_second_usd, replica_usd_per_hour
from equipoise.errors import EquipoiseError
from equipoise.runs.records import CostTerms

HOURS_PER_MONTH = 730.0
"""A twelfth of 365 days."""

_BYTES_PER_GB = 1e9
_FUZZ = 1e-9
"""Relative excess over a whole number of replicas that is taken for a rounding error."""


def replicas_needed(rps: float, capacity_rps: float) -> int:
    """Whole replicas that carry `rps` requests a second at `capacity_rps` each; at least 1.

    Raises:
        EquipoiseError: a rate is not a positive, finite number.
    """
    _check_positive(rps=rps, capacity_rps=capacity_rps)
    return max(1, math.ceil(rps / capacity_rps * (1 - _FUZZ)))


def serving_usd_per_1k(replicas: int, usd_per_hour: float, rps: float) -> float:
    """Dollars per 1,000 requests of `replicas`, idle time included, when `rps` requests a second arrive.

    Args:
        replicas: whole replicas that are kept running.
        usd_per_hour: price of one of them.
        rps: arrival rate, requests per second.

    Raises:
        EquipoiseError: the arrival rate is not a positive, finite number.
    """
    _check_positive(rps=rps)
    return replicas * usd_per_hour / (rps * 3600) * 1000


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
) -> CostTerms:
    """The four cost terms of a candidate over the horizon, in dollars, at the config's arrival rate.

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

    Raises:
        ConfigError: a node is not in the price book, or a replica does not fit on it.
        EquipoiseError: the throughput is not a positive, finite number.
    """
    core_second = core_second_usd(book, cost.training_node or cost.node)
    training = training_core_seconds * core_second
    search = search_core_seconds * core_second

    replicas = replicas_needed(cost.rps, throughput_rps * cost.target_utilization)
    usd_per_hour = replica_usd_per_hour(book, cost)
    serving_month = replicas * usd_per_hour * HOURS_PER_MONTH
    serving = serving_month * cost.horizon_months

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
        replicas=replicas,
        compute_training_usd=training,
        compute_search_usd=search,
        compute_serving_usd=serving,
        storage_usd=storage,
        data_usd=data,
        maintenance_usd=maintenance,
        serving_usd_per_1k=serving_usd_per_1k(replicas, usd_per_hour, cost.rps),
        total_usd_per_1k=total / requests * 1000,
        serving_usd_month=serving_month,
    )


def _check_positive(**rates: float) -> None:
    for name, rate in rates.items():
        if not (rate > 0 and math.isfinite(rate)):
            raise EquipoiseError("must be a positive, finite number", where=name, value=rate)
