"""What a replica tells of the model it serves."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ModelCard:
    """Facts that the metadata, the OpenAPI document and the page show."""

    name: str
    """In paths, answers and metrics."""
    task: str
    """Task family."""
    engine: str
    precision: str
    labels: tuple[str, ...]
    max_body_bytes: int
    max_inputs: int
    needs_key: bool
    usd_per_core_second: float | None = None
    """Price of a second of the engine; None where no price book was given."""

    @property
    def writes(self) -> bool:
        """Whether it is a language model, which writes instead of predicting."""
        return self.task == "text_generation"
