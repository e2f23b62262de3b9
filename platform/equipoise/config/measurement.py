"""How candidates are measured."""

from __future__ import annotations

from pydantic import Field

from equipoise.config.section import Section


class MeasurementConfig(Section):
    """Sample sizes of the quality figures and of the timings; None means every row."""

    robustness_rows: int | None = Field(
        None, ge=10, description="Validation rows that robustness is measured on (seeded)."
    )
    corruptions_per_row: int | None = Field(
        None, ge=1, description="Corruptions each of those rows is put through, in rotation."
    )
    gap_rows: int | None = Field(
        None, ge=10, description="Training rows that the train–validation gap is measured on (seeded)."
    )
    agreement_rows: int = Field(
        100,
        ge=10,
        description="Validation rows run alone and in a batch to see how far logits move with a row's "
        "neighbours; every row whose label could change by that is run as well.",
    )
    resamples: int = Field(1000, ge=100, description="Bootstrap resamples behind each interval.")
    latency_requests: int = Field(200, ge=20, description="Timed requests at batch 1.")
    throughput_batches: int = Field(12, ge=3, description="Timed batches.")
    max_neighbour_changes: float = Field(
        0.001,
        ge=0,
        le=1,
        description="Largest share of labels that may change with a row's neighbours in the batch.",
    )
    max_export_changes: float = Field(
        0.005,
        ge=0,
        le=1,
        description="Largest share of labels that may change between torch and an fp32 export.",
    )
