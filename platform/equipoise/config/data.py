"""Where the examples come from and how they are split."""

from __future__ import annotations

from pydantic import Field

from equipoise.config.section import Section


class DataConfig(Section):
    """Sources are a path or URI of a .csv, .jsonl or .parquet file, or `sample://NAME/SPLIT`."""

    train: str = Field(description="Training examples.")
    test: str = Field(description="Test examples; read once, after the choice is written.")
    validation: str | None = Field(
        None, description="Validation examples; by default a stratified, seeded share of train."
    )
    text_column: str = Field("text", description="Column that holds the text.")
    prompt_column: str | None = Field(
        None,
        description="For text_generation: column that holds the prompt; the text column holds what follows "
        "it. Without one, the text stands alone.",
    )
    label_column: str = Field("label", description="Column that holds the label.")
    validation_share: float = Field(
        0.1, gt=0, lt=0.5, description="Share of train held out where validation is not given."
    )
    train_rows: int | None = Field(
        None, ge=8, description="Train on this many rows only: a stratified, seeded part of train."
    )
    validation_rows: int | None = Field(
        None, ge=8, description="Use this many validation rows only: a stratified, seeded part."
    )
    test_rows: int | None = Field(
        None, ge=8, description="Use this many test rows only: a stratified, seeded part."
    )
    deduplicate: bool = Field(
        True, description="Drop repeated training texts, and those that also stand in test."
    )
    max_row_bytes: int = Field(262_144, ge=1, description="Refuse a text longer than this many bytes.")
