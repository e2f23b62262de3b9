"""What one training is, beside its rows."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from equipoise.training.examples import Examples
from equipoise.training.guidance import Guidance
from equipoise.training.losses import Objective
from equipoise.training.weight_files import weight_files


@dataclass(frozen=True)
class TrainingJob:
    """Everything that a worker needs beside the examples; plain values only.

    `checkpoints` is the folder that an interrupted training continues from, `worker_usd_per_hour` what
    each of its workers costs, for the progress.
    """

    title: str
    model_folder: str
    model_class: str
    labels: int | None
    layers: tuple[int, ...] | None
    freeze_embeddings: bool
    deepspeed: dict[str, Any]
    batch_size: int
    total_steps: int
    seed: int
    objective: Objective = field(default_factory=Objective)
    guidance: Guidance | None = None
    lora: dict[str, Any] | None = None
    gradient_checkpointing: bool = False
    sparse: bool = False
    quantizers: bool = False
    on_gpus: bool = False
    checkpoint_every_steps: int | None = None
    checkpoint_every_s: float | None = None
    checkpoints: str | None = None
    worker_usd_per_hour: float | None = None

    def digest(self, examples: Examples) -> str:
        """Names the training: another model, other rows or settings have another.

        What does not change its result is left out: when it saves, what it costs, how many work on it.
        """
        plain = replace(
            self,
            checkpoint_every_steps=None,
            checkpoint_every_s=None,
            checkpoints=None,
            worker_usd_per_hour=None,
        )
        values = asdict(plain)
        del values["deepspeed"]["train_micro_batch_size_per_gpu"]
        states = [file.stat() for file in weight_files(Path(self.model_folder))]
        weights = [number for state in states for number in (state.st_size, state.st_mtime_ns)]
        content = [values, examples.digest(), *weights]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
