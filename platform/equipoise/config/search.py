"""Which recipes are tried, and how the choice among them is made."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from equipoise.config.section import NodeLabel, Section

LayerChoice = Literal["first", "spread", "last"]
Precision = Literal[
    "fp32",
    "bf16",
    "fp16",
    "int8",
    "int8_guarded",
    "int8_qat",
    "int8_dynamic",
    "int8_weights",
    "int4_weights",
]
EngineName = Literal["torch", "onnxruntime", "openvino"]
Objective = Literal["metric", "robustness", "calibration", "latency_p99_ms", "serving_usd_per_1k", "bytes"]
Importance = Literal["taylor", "magnitude"]
Vocabulary = Literal["full", "task"]
Share = Annotated[float, Field(gt=0, le=1)]


class SearchConfig(Section):
    """The space and the sampler; a precision is tried on the engines that have it."""

    trials: int = Field(16, ge=1, description="Candidates to measure, those of an earlier try included.")
    time_limit_s: float | None = Field(
        None, gt=0, description="Start no further trial after this many seconds."
    )
    max_usd: float | None = Field(
        None, gt=0, description="Start no further trial once the search has cost this much; status 4."
    )
    window: int | None = Field(
        None, ge=1, description="Stop once so many trials after the anchors gained next to no hypervolume."
    )
    min_gain: float = Field(
        0.01, ge=0, lt=1, description="Share of hypervolume that a window must gain for the search to go on."
    )
    concurrent_trials: int | None = Field(
        None,
        ge=1,
        description="Most trials at once; null is one a machine of the cluster, 1 on a single one.",
    )
    serving_nodes: NodeLabel | None = Field(
        None,
        description="KEY=VALUE Ray label of the nodes that candidates are measured on; null is "
        "equipoise.io/hardware=serving, or every node where none has it.",
    )
    short_recovery: Literal["auto"] | Share = Field(
        "auto",
        description="Share of distillation.epochs that structures are trained for first, the promising then "
        "in full; 1 is in full at once, auto 0.25 from 32 trials on and 1 below.",
    )
    sampler: Literal["tpe", "nsga2", "random"] = Field("tpe", description="Optuna sampler.")
    warm_start: tuple[str, ...] = Field(
        (), description="Earlier runs, same task and hardware, whose choice and frontier are tried early."
    )
    objectives: tuple[Objective, ...] = Field(
        ("metric", "robustness", "latency_p99_ms", "serving_usd_per_1k"),
        min_length=2,
        description="What the frontier is drawn over.",
    )
    depths: tuple[int, ...] = Field(
        (1, 2, 3), min_length=1, description="Student depths in layers; the teacher's own is always in."
    )
    layers: tuple[LayerChoice, ...] = Field(
        ("first", "spread"), min_length=1, description="Which of the teacher's layers a student takes."
    )
    head_shares: tuple[Share, ...] = Field(
        (1.0,),
        min_length=1,
        description="Shares of its attention heads that a structure keeps in each layer.",
    )
    ffn_shares: tuple[Share, ...] = Field(
        (1.0,), min_length=1, description="Shares of its FFN neurons that a structure keeps in each layer."
    )
    channel_shares: tuple[Share, ...] = Field(
        (1.0,),
        min_length=1,
        description="Of a CNN, shares of its channels that a structure keeps in the stem and each stage.",
    )
    importance: Importance = Field(
        "taylor", description="Scores by which heads, neurons and channels are kept."
    )
    vocabulary: tuple[Vocabulary, ...] = Field(
        ("full",), min_length=1, description="Whole vocabulary, or the pieces that the task's rows use."
    )
    engines: tuple[EngineName, ...] = Field(
        ("torch", "onnxruntime", "openvino"), min_length=1, description="Engines to try."
    )
    precisions: tuple[Precision, ...] | None = Field(
        None,
        min_length=1,
        description="Precisions to try; null is every one that the engines have for the family on this CPU, "
        "without int8_guarded and int8_qat.",
    )

    @property
    def first_recovery(self) -> float:
        """Share of the epochs that a structure is trained for first."""
        if self.short_recovery == "auto":
            return 0.25 if self.trials >= 32 else 1.0
        return self.short_recovery


class ConstraintsConfig(Section):
    """What the choice must meet; the cheapest candidate that does is chosen."""

    max_drop: float | None = Field(
        0.01, ge=0, le=1, description="Largest loss of the task metric against the teacher (0.01 = 1 point)."
    )
    max_relative_drop: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Largest loss of the task metric as a share of the teacher's (0.02 = 2% of it); of a "
        "language model, about that much more perplexity.",
    )
    p99_ms: float | None = Field(None, gt=0, description="Latency at batch 1, 99th percentile.")
    max_usd_month: float | None = Field(None, gt=0, description="Serving dollars a month.")
    max_mb: float | None = Field(None, gt=0, description="Size on disk, in MB of 10^6 bytes.")
    min_robustness: float | None = Field(
        None, ge=0, le=1, description="Least share of the task metric kept on corrupted input."
    )
