"""Traffic, horizon and prices."""

from __future__ import annotations

from pydantic import Field

from equipoise.config.section import Section


class CostConfig(Section):
    """Turns measured seconds and bytes into dollars."""

    rps: float = Field(100, gt=0, description="Expected arrival rate, requests per second.")
    horizon_months: float = Field(12, gt=0, description="Months that the deployment is priced over.")
    prices: str | None = Field(None, description="A price book (YAML) that overrides the shipped one by key.")
    node: str = Field("aws/c7i.large", description="Node type of the price book that serves.")
    training_node: str | None = Field(None, description="Node type that trains and searches; default: node.")
    replica_cores: float = Field(1, gt=0, description="Cores a serving replica takes.")
    replica_memory_gib: float = Field(1, gt=0, description="Memory a serving replica takes.")
    target_utilization: float = Field(
        0.8, gt=0, le=1, description="Share of a replica's measured throughput that is planned with."
    )
    labelled_rows: int | None = Field(
        None, ge=0, description="Labels paid for; default: those of train and validation."
    )
    engineer_hours_per_month: float = Field(0, ge=0, description="Hours of upkeep a month.")
    retrainings_per_year: float = Field(0, ge=0, description="Each costs what training costs.")
