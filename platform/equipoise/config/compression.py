"""Recipes that a user writes down: each an ordered list of steps."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, model_validator

from equipoise.config.search import EngineName, Importance, Precision, Share, Vocabulary
from equipoise.config.section import Section

Counts = Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)]


class Prune(Section):
    """What of the teacher a student starts from."""

    layers: tuple[int, ...] | None = Field(
        None, min_length=1, description="The teacher's layers that are kept, from 0; null is all."
    )
    heads: Share | Counts = Field(1.0, description="Share of the attention heads, or how many in each layer.")
    ffn: Share | Counts = Field(1.0, description="Share of the FFN neurons, or how many in each layer.")
    channels: Share | Counts = Field(
        1.0, description="Of a CNN, share of the channels, or how many in the stem and in each stage."
    )
    speedup: float | None = Field(
        None,
        gt=1,
        description="In place of layers, heads and ffn: times as fast as the teacher on the engine.",
    )
    p99_ms: float | None = Field(
        None, gt=0, description="The same by the 99th percentile of latency at batch 1."
    )
    sparsity: float = Field(
        0.0, ge=0, lt=1, description="Share of each matrix's weights that are set to zero, by magnitude."
    )
    importance: Importance = Field(
        "taylor", description="By which scores heads, neurons and channels are kept."
    )
    vocabulary: Vocabulary = Field("full", description="Keep the whole vocabulary, or what the task uses.")

    @property
    def timed(self) -> bool:
        """Whether a latency table chooses the structure."""
        return self.speedup is not None or self.p99_ms is not None

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.speedup is not None and self.p99_ms is not None:
            raise ValueError("speedup and p99_ms are two targets: give one")
        given = self.layers is not None or {self.heads, self.ffn, self.channels} != {1.0}
        if self.timed and given:
            raise ValueError("a target chooses layers, heads and ffn by itself: leave them out")
        return self


class Distil(Section):
    """The student learns from the teacher, as `distillation` says."""


class Quantize(Section):
    """What runs the student, and in which precision."""

    engine: EngineName = Field("openvino", description="Engine.")
    precision: Precision = Field("int8", description="Precision.")


def _named(value: Any) -> Any:
    """A step's name alone stands for the step with its defaults."""
    return {value: {}} if isinstance(value, str) else value


class Step(Section):
    """One step; exactly one of its keys is given."""

    prune: Prune | None = None
    distil: Distil | None = None
    quantize: Quantize | None = None

    @property
    def name(self) -> str:
        """The key that is given."""
        return next(name for name in ORDER if getattr(self, name) is not None)

    @model_validator(mode="after")
    def _one(self) -> Self:
        given = [name for name in ORDER if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"a step is one of {', '.join(ORDER)}")
        return self


def steps_of(steps: tuple[Step, ...]) -> tuple[Prune, Quantize]:
    """What a recipe prunes, and what runs it: PyTorch in fp32 where it has no step for that."""
    prune = [step.prune for step in steps if step.prune is not None]
    run = [step.quantize for step in steps if step.quantize is not None]
    return prune[0] if prune else Prune(), run[0] if run else Quantize(engine="torch", precision="fp32")


ORDER = ("prune", "distil", "quantize")


def _in_order(steps: tuple[Step, ...]) -> tuple[Step, ...]:
    names = [step.name for step in steps]
    if names != [name for name in ORDER if name in names]:
        raise ValueError(f"steps come in the order {', '.join(ORDER)}, each at most once")
    return steps


Steps = Annotated[
    tuple[Annotated[Step, BeforeValidator(_named)], ...],
    Field(min_length=1),
]


class CompressionConfig(Section):
    """Recipes to measure beside those of the search's space."""

    recipes: tuple[Steps, ...] = Field(
        (),
        description="Recipes, each a list of steps (prune, distil, quantize); measured after the teacher.",
    )
    importance_rows: int = Field(256, ge=1, description="Training rows that Taylor scores are read from.")

    int8_max_drop: float = Field(
        0.005,
        ge=0,
        le=1,
        description="Of int8_guarded: loss of the task metric against the same model in fp32 from which on "
        "layers are spared.",
    )
    int8_guard_s: float = Field(
        120, gt=0, description="Of int8_guarded: seconds that finding the layers to spare may take."
    )

    qat_epochs: float = Field(
        1, gt=0, description="Of int8_qat: passes over the training rows with fake quantizers."
    )
    qat_learning_rate: float = Field(
        3e-5, gt=0, le=1, description="Of int8_qat: peak learning rate, well below that of distillation."
    )

    @model_validator(mode="after")
    def _orders(self) -> Self:
        for steps in self.recipes:
            _in_order(steps)
        return self
