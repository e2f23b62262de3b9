"""How the teacher is fine-tuned and students are distilled."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from equipoise.config.section import Section

PrecisionChoice = Literal["auto", "fp32", "bf16", "fp16"]
Schedule = Literal["linear", "cosine", "constant"]
Placement = Literal["PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD"]
Count = Annotated[int, Field(ge=1)]
Range = Annotated[str, StringConstraints(pattern=r"^[1-9][0-9]*\.\.[1-9][0-9]*$")]
Amount = Annotated[float, Field(ge=0)]
Place = Annotated[int, Field(ge=0)]


class LoraConfig(Section):
    """Low-rank adapters (Hu et al., 2021): all else stays as it is; merged when training ends."""

    rank: int = Field(16, ge=1, description="Rank of each adapter.")
    alpha: float = Field(32, gt=0, description="An adapter's output is scaled by alpha over rank.")
    dropout: float = Field(0.0, ge=0, lt=1, description="Dropout before each adapter.")
    target_modules: tuple[str, ...] | Literal["all-linear"] = Field(
        "all-linear",
        description="Names of the layers that get one; all-linear is every linear layer but the head.",
    )


class TrainingConfig(Section):
    """Ray Train + DeepSpeed settings, shared by fine-tuning and distillation."""

    workers: Literal["auto"] | Count | Range = Field(
        "auto",
        description="Training workers; auto is one a core (or one a GPU), MIN..MAX what there is.",
    )
    resources_per_worker: dict[str, Amount] = Field(
        default_factory=dict,
        description="Ray resources of a worker; by default a CPU, and a GPU where this machine has one.",
    )
    accelerator_type: str | None = Field(
        None, description="Ray's name of the accelerator that workers need, such as A100-80G."
    )
    placement: Placement = Field("PACK", description="Ray's placement strategy of the workers.")
    retries: int = Field(1, ge=0, description="Restarts after workers that died, from the last checkpoint.")
    precision: PrecisionChoice = Field(
        "auto", description="auto is bf16 where the hardware has it, otherwise fp32."
    )
    loss_scale: float = Field(0, ge=0, description="Fixed loss scale of fp16; 0 adapts it.")
    zero_stage: Literal[0, 1, 2, 3] = Field(1, description="DeepSpeed ZeRO stage.")
    offload_optimizer: bool = Field(False, description="Keep optimizer states in the host's memory.")
    offload_parameters: bool = Field(
        False, description="Keep parameters in the host's memory; needs stage 3."
    )
    gradient_checkpointing: bool = Field(
        False, description="Compute activations again in the backward pass instead of keeping them."
    )
    gradient_accumulation: int = Field(
        1, ge=1, description="Parts that a worker takes its share of a batch in, to hold less at once."
    )
    epochs: float = Field(3, gt=0, description="Passes over the training rows.")
    batch_size: int = Field(64, ge=1, description="Rows per optimizer step, over all workers.")
    learning_rate: float = Field(1e-4, gt=0, le=1, description="Peak learning rate.")
    warmup_share: float = Field(0.1, ge=0, lt=1, description="Share of steps that warm up.")
    schedule: Schedule = Field("linear", description="How the learning rate falls after the warm-up.")
    weight_decay: float = Field(0.01, ge=0, description="AdamW's.")
    gradient_clipping: float = Field(1.0, gt=0, description="Largest gradient norm.")
    freeze_embeddings: bool = Field(
        False, description="Keep the embedding tables as they are: fewer bytes to train and send."
    )
    checkpoint_every_s: float | None = Field(
        300, gt=0, description="Seconds between checkpoints that an interrupted training continues from."
    )
    checkpoint_every_steps: int | None = Field(
        None, ge=1, description="Steps between checkpoints, beside the seconds."
    )
    lora: LoraConfig | None = Field(
        None, description="Fine-tune the teacher by low-rank adapters; students are trained whole."
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
    hidden_weight: float = Field(
        0, ge=0, description="Weight of the squared difference to the teacher's hidden states."
    )
    relation_weight: float = Field(
        0, ge=0, description="Weight of the divergence from the teacher's attention relations (MiniLM)."
    )
    relation_heads: int = Field(12, ge=1, description="Parts that queries, keys and values are split into.")
    layer_map: Literal["last", "uniform"] | tuple[Place, ...] = Field(
        "last",
        description="Teacher's layer for each of the student's: last, uniform, or their numbers from 0.",
    )
    states_gib: float = Field(
        20,
        ge=0,
        description="Most that is kept on disk of the teacher's hidden states and attention at the training "
        "rows, computed once for all students; where it would be more, the teacher runs beside each student.",
    )
    generated_tokens: int | None = Field(
        None,
        ge=1,
        description="Of a language model, let the teacher write up to this many tokens after each prompt, "
        "and students learn those instead of the data's (Kim and Rush, 2016).",
    )
    top_tokens: int = Field(
        16,
        ge=1,
        description="Of a language model, the teacher's likeliest tokens that are kept at each place; the "
        "others count together, and the temperature does not apply.",
    )

    @property
    def guided(self) -> bool:
        """Whether students are held to what the teacher has inside, beside its answers."""
        return self.hidden_weight > 0 or self.relation_weight > 0
