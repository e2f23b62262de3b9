"""The loop that every Ray Train worker runs: fine-tuning and distillation alike."""

from __future__ import annotations

import os
import tempfile
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise.errors import TrainingDivergedError
from equipoise.observability import progress
from equipoise.tasks import IGNORED
from equipoise.training.batches import epoch_batches, worker_share


@dataclass(frozen=True)
class Examples:
    """Encoded training rows.

    `arrays` are the model's inputs with the row as first axis; `targets` (rows,) or (rows, longest)
    with IGNORED where nothing is asked; `ragged`, whether second axes are padded to the longest row;
    `teacher_logits` (places, classes) in the order of the targets that are not ignored, or None.
    """

    arrays: dict[str, NDArray[Any]]
    targets: NDArray[np.int64]
    lengths: NDArray[np.int64]
    ragged: bool = True
    teacher_logits: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.targets)

    @cached_property
    def places(self) -> NDArray[np.int64]:
        """Number of places of each row, shape (rows,)."""
        return np.asarray((self.targets != IGNORED).reshape(len(self), -1).sum(axis=1), dtype=np.int64)

    @cached_property
    def first_place(self) -> NDArray[np.int64]:
        """Number of places before each row, shape (rows,)."""
        return np.cumsum(self.places) - self.places

    def places_of(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Numbers of the places of some rows, in their order."""
        starts, counts = self.first_place[rows], self.places[rows]
        offsets = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        return np.asarray(np.repeat(starts, counts) + offsets, dtype=np.int64)


@dataclass(frozen=True)
class TrainingJob:
    """What a worker needs beside the examples."""

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
    temperature: float = 1.0
    soft_share: float = 0.0


def train_worker(config: dict[str, Any]) -> dict[str, Any]:
    """Train one model; rank 0 reports its weights in fp32 as the checkpoint.

    Args:
        config: `job` (a TrainingJob) and `examples` (an object reference to Examples).

    Returns:
        Mean loss of the last steps, rows a second over all workers, and CPU seconds of each worker.
    """
    import deepspeed
    import ray
    import ray.train
    import torch

    from equipoise.training.initialization import freeze_embeddings, load_initial_model

    cpu_begun = time.process_time()
    job: TrainingJob = config["job"]
    examples: Examples = ray.get(config["examples"])
    context = ray.train.get_context()
    rank, workers = context.get_world_rank(), context.get_world_size()
    torch.manual_seed(job.seed + rank)
    torch.set_num_threads(max(1, int(os.environ.get("OMP_NUM_THREADS", "1"))))
    _use_shared_memory_op(deepspeed)

    # The same seed on every rank: a new head must start equal everywhere.
    with torch.random.fork_rng():
        torch.manual_seed(job.seed)
        model = load_initial_model(job.model_folder, job.model_class, job.labels, job.layers)
    frozen = freeze_embeddings(model) if job.freeze_embeddings else []
    original = {name: value.detach().clone() for name, value in model.named_parameters() if name in frozen}
    engine, _, _, _ = deepspeed.initialize(
        model=model,
        model_parameters=[p for p in model.parameters() if p.requires_grad],
        config=job.deepspeed,
    )
    engine.train()
    losses: list[float] = []
    started = time.perf_counter()
    step = rows_seen = epoch = 0
    while step < job.total_steps:
        for batch in epoch_batches(examples.lengths, job.batch_size, job.seed, epoch):
            if step >= job.total_steps:
                break
            rows, weight = worker_share(batch, rank, workers, examples.places)
            loss = _loss(torch, engine, examples, rows, job) * weight
            engine.backward(loss)
            engine.step()
            value = float(loss.detach())
            if not np.isfinite(value):
                raise TrainingDivergedError(
                    f"the loss is not finite at step {step}: rows {rows[:8].tolist()}…, "
                    f"learning rate {engine.get_lr()[0]:.2e}",
                    where=job.title,
                    remedy="lower training.learning_rate, or use precision fp32",
                )
            losses.append(value)
            step += 1
            rows_seen += len(batch)
            if rank == 0:
                pace = rows_seen / (time.perf_counter() - started)
                progress.tell(job.title, step, job.total_steps, loss=value, rows_per_s=pace)
        epoch += 1
    elapsed = time.perf_counter() - started
    figures: dict[str, Any] = {
        "loss": float(np.mean(losses[-10:])),
        "rows_per_s": rows_seen / elapsed,
        "loop_s": elapsed,
        "worker_cpu_s": _gather(torch, time.process_time() - cpu_begun, workers),
    }
    _report_weights(engine, original, figures, rank)
    return figures


def _gather(torch: Any, value: float, workers: int) -> list[float]:
    """A figure of every rank, in order of rank."""
    found = [0.0] * workers
    torch.distributed.all_gather_object(found, value)
    return found


def _loss(torch: Any, engine: Any, examples: Examples, rows: NDArray[np.int64], job: TrainingJob) -> Any:
    """Mean loss over the places of these rows; 0 where they have none."""
    longest = int(examples.lengths[rows].max()) if examples.ragged else None

    dtype = next(engine.module.parameters()).dtype

    def cut(array: NDArray[Any]) -> Any:
        part = array[rows] if longest is None or array.ndim == 1 else array[rows, :longest]
        found = torch.from_numpy(np.ascontiguousarray(part)).to(engine.device)
        return found.to(dtype) if found.is_floating_point() else found

    targets = cut(examples.targets)
    logits = engine(**{name: cut(array) for name, array in examples.arrays.items()}).logits.float()
    asked = targets != IGNORED
    logits, targets = logits[asked], targets[asked]
    functional = torch.nn.functional
    hard = functional.cross_entropy(logits, targets, reduction="sum") / max(len(targets), 1)
    if examples.teacher_logits is None or job.soft_share == 0:
        return hard
    teacher = torch.from_numpy(examples.teacher_logits[examples.places_of(rows)]).to(engine.device)
    soft = functional.kl_div(
        functional.log_softmax(logits / job.temperature, dim=-1),
        functional.log_softmax(teacher / job.temperature, dim=-1),
        log_target=True,
        reduction="sum",
    ) / max(len(targets), 1)
    # The gradient of the soft term shrinks with the temperature squared (Hinton et al., 2015).
    return job.soft_share * job.temperature**2 * soft + (1 - job.soft_share) * hard


def _report_weights(engine: Any, original: dict[str, Any], figures: dict[str, Any], rank: int) -> None:
    """Gather the fp32 master weights (collective under ZeRO) and report them from rank 0."""
    import ray.train
    from deepspeed.utils import safe_get_full_fp32_param
    from safetensors.torch import save_file

    state: dict[str, Any] = {}
    for name, parameter in engine.module.named_parameters():
        full = original.get(name)
        if full is None:
            full = safe_get_full_fp32_param(parameter)
        if full is None:
            full = parameter.detach()
        state[name] = full.float().cpu().contiguous().clone()
    # Running means and the like, which a BatchNorm keeps; whole on every rank.
    learned = engine.module.state_dict().keys() - state.keys()
    for name, buffer in engine.module.named_buffers():
        if name in learned:
            state[name] = (buffer.float() if buffer.is_floating_point() else buffer).cpu().contiguous()
    if rank != 0:
        ray.train.report(dict(figures), checkpoint=None)
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
        engine.module.config.architectures = [type(engine.module).__name__]
        engine.module.config.save_pretrained(folder)
        ray.train.report(dict(figures), checkpoint=ray.train.Checkpoint.from_directory(scratch))


def _use_shared_memory_op(deepspeed: Any) -> None:
    """Use DeepSpeed's shared-memory all-reduce only where it was built beforehand.

    Its first use would otherwise compile for minutes, or fail where there is no compiler.
    """
    from deepspeed.git_version_info import installed_ops

    if installed_ops.get("deepspeed_shm_comm"):
        return  # compiled when DeepSpeed was installed, as in the container image
    built = Path(os.environ.get("TORCH_EXTENSIONS_DIR", "")) / "deepspeed_shm_comm"
    if not any(built.glob("**/deepspeed_shm_comm*.so")):
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
