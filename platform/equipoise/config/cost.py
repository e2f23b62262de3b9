"""Traffic, horizon and prices."""

from __future__ import annotations

from pydantic import Field

from equipoise.config.section import Section


class CostConfig(Section):
    """Turns measured seconds and bytes into dollars."""

    rps: float = Field(
        100, gt=0, description="Expected arrival rate, requests per second; the profile's mean."
    )
    profile: str = Field(
        "constant",
        min_length=1,
        description="How traffic varies: constant, diurnal, office-hours, bursts, or a CSV of arrivals.",
    )
    p99_ms: float | None = Field(
        None,
        gt=0,
        description="Latency objective under load, waiting included; replicas are added until it holds.",
    )
    min_replicas: int = Field(1, ge=1, description="Replicas that stay up when hardly anything arrives.")
    horizon_months: float = Field(12, gt=0, description="Months that the deployment is priced over.")
    prices: str | None = Field(None, description="A price book (YAML) that overrides the shipped one by key.")
    node: str = Field("aws/c7i.large", description="Node type of the price book that serves.")
    spot: bool = Field(False, description="Serve at the node's spot price.")
    training_node: str | None = Field(None, description="Node type that trains and searches; default: node.")
    replica_cores: float = Field(1, gt=0, description="Cores a serving replica takes.")
    replica_memory_gib: float = Field(1, gt=0, description="Memory a serving replica takes.")
    replica_gpus: float = Field(0, ge=0, description="GPUs a serving replica takes.")
    whole_nodes: bool = Field(
        False, description="Charge what replicas leave idle on their nodes to the deployment too."
    )
    target_utilization: float = Field(
        0.8, gt=0, le=1, description="Share of a replica's measured throughput that is planned with."
    )
    labelled_rows: int | None = Field(
        None, ge=0, description="Labels paid for; default: those of train and validation."
    )
    learning_curve: bool = Field(
        False, description="Train the teacher on 25 and 50% of the labels too, to see what labels buy."
    )
    engineer_hours_per_month: float = Field(0, ge=0, description="Hours of upkeep a month.")
    retrainings_per_year: float = Field(0, ge=0, description="Each costs what training costs.")
