"""One rank of a training without Ray: the same `Loop`, in a gloo group that the test sets up.

python loop_worker.py PLAN.json: runs every training of the plan in turn and prints a JSON line of each.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from equipoise.config.training import TrainingConfig
from equipoise.errors import EquipoiseError
from equipoise.training.deepspeed_config import build_deepspeed_config
from equipoise.training.examples import Examples
from equipoise.training.guidance import Guidance
from equipoise.training.job import TrainingJob
from equipoise.training.loop import CheckpointFaultError, Loop
from equipoise.training.weights import full_weights

RATE = 3e-3


def main(plan: Path) -> None:
    warnings.simplefilter("ignore")
    rank, workers = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    torch.distributed.init_process_group("gloo", rank=rank, world_size=workers)
    torch.set_num_threads(1)
    for training in json.loads(plan.read_text(encoding="utf-8")):
        line = train(rank, workers, **training)
        if rank == 0:
            print(json.dumps(line), flush=True)
    torch.distributed.barrier()
    # What DeepSpeed leaves running would hold the interpreter up.
    os._exit(0)


def train(
    rank: int,
    workers: int,
    model: str,
    folder: str,
    section: dict[str, Any],
    rows: int = 40,
    steps: int = 12,
    stop: int | None = None,
    file_limit: int | None = None,
    layers: list[int] | None = None,
    guidance: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Train up to `stop`; the weights go to `folder`/weights.safetensors.

    A student has `layers` of the model alone and is held to it by `guidance`; its model folder goes to
    `folder`/student.
    """
    config = TrainingConfig.model_validate(
        {"precision": "fp32", "batch_size": 8, "workers": workers, **section}
    )
    job = TrainingJob(
        title="a training",
        model_folder=model,
        model_class="AutoModelForSequenceClassification",
        labels=None,
        layers=None if layers is None else tuple(layers),
        guidance=None if guidance is None else Guidance(**{"teacher": model, **guidance}),
        freeze_embeddings=config.freeze_embeddings,
        deepspeed=build_deepspeed_config(config, workers=workers, total_steps=steps, learning_rate=RATE),
        batch_size=config.batch_size,
        total_steps=steps,
        seed=5,
        gradient_checkpointing=config.gradient_checkpointing,
        checkpoint_every_steps=config.checkpoint_every_steps,
        checkpoints=str(Path(folder) / "checkpoints"),
    )
    loop = Loop(job, examples(rows), rank, workers)
    started = loop.position.step
    loop.job = replace(job, total_steps=stop or steps)
    if file_limit is not None:
        import resource
        import signal

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, resource.RLIM_INFINITY))
    fault: EquipoiseError | None = None
    try:
        loop.run()
    except EquipoiseError as error:
        fault = error
    except CheckpointFaultError as error:
        fault = error.cause
    finally:
        if file_limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    weights = {name: value.clone() for name, value in full_weights(loop.engine, loop.original)}
    if rank == 0:
        save_file(weights, Path(folder) / "weights.safetensors")
    if layers is not None:
        student = Path(folder) / "student"
        student.mkdir(exist_ok=True)
        loop.write_model(student if rank == 0 else None)
    return {
        "started": started,
        "step": loop.position.step,
        "losses": loop.position.losses,
        "right": loop.position.right,
        "rate": float(loop.engine.get_lr()[0]),
        "fault": None if fault is None else [type(fault).__name__, str(fault)],
    }


def examples(rows: int) -> Examples:
    """Random rows of three classes."""
    draw = np.random.default_rng(0)
    lengths = draw.integers(4, 13, rows)
    mask = (np.arange(12) < lengths[:, None]).astype(np.int64)
    return Examples(
        arrays={"input_ids": draw.integers(1, 100, (rows, 12)) * mask, "attention_mask": mask},
        targets=draw.integers(0, 3, rows),
        lengths=lengths,
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
