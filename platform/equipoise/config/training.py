"""How the teacher is fine-tuned and students are distilled."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from equipoise.config.section import Section

PrecisionChoice = Literal["auto", "fp32", "bf16"]


class TrainingConfig(Section):
    """Ray Train + DeepSpeed settings, shared by fine-tuning and distillation."""

    workers: int | Literal["auto"] = Field(
        "auto", description="Training workers; auto is one a core (or one a GPU)."
    )
    precision: PrecisionChoice = Field(
        "auto", description="auto is bf16 where the hardware has it, otherwise fp32."
    )
    zero_stage: Literal[0, 1, 2, 3] = Field(1, description="DeepSpeed ZeRO stage.")
    epochs: float = Field(3, gt=0, description="Passes over the training rows.")
    batch_size: int = Field(64, ge=1, description="Rows per optimizer step, over all workers.")
    learning_rate: float = Field(1e-4, gt=0, le=1, description="Peak learning rate.")
    warmup_share: float = Field(0.1, ge=0, lt=1, description="Share of steps that warm up.")
    weight_decay: float = Field(0.01, ge=0, description="AdamW's.")
    gradient_clipping: float = Field(1.0, gt=0, description="Largest gradient norm.")
    freeze_embeddings: bool = Field(
        False, description="Keep the embedding tables as they are: fewer bytes to train and send."
    )
    deepspeed: dict[str, Any] = Field(
        default_factory=dict, description="DeepSpeed keys that override the generated ones."
    )


class DistillationConfig(Section):
    """Students learn from cached teacher logits (Hinton et al., 2015) and from the labels."""

    epochs: float = Field(5, gt=0, description="Passes over the training rows.")
    learning_rate: float = Field(3e-4, gt=0, le=1, description="Peak learning rate.")
    temperature: float = Field(2.0, gt=0, description="Softens both distributions in the loss.")
    soft_share: float = Field(
        0.7, ge=0, le=1, description="Weight of the teacher's distribution; labels get the rest."
    )
