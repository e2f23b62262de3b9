"""The loop that every Ray Train worker runs: fine-tuning and distillation alike."""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise.errors import EquipoiseError, ModelError, TrainingDivergedError
from equipoise.observability import progress
from equipoise.training.batch_norm import kept_statistics
from equipoise.training.batches import batches_from, worker_share
from equipoise.training.checkpoints import CheckpointStore, Timetable
from equipoise.training.deepspeed_config import fit_to_workers
from equipoise.training.engine_state import gather_state, load_weights, read_state, write_state
from equipoise.training.examples import Examples, take_batch
from equipoise.training.guide import Guide
from equipoise.training.job import TrainingJob
from equipoise.training.lora import write_merged
from equipoise.training.losses import compute_loss, count_right
from equipoise.training.weights import write_model

_log = logging.getLogger(__name__)
_REMEMBERED_STEPS = 10


@dataclass
class Position:
    """How far a training is; kept in its checkpoints."""

    step: int = 0
    rows: int = 0
    tokens: int = 0
    elapsed_s: float = 0.0
    losses: list[float] = field(default_factory=list)
    right: list[float] = field(default_factory=list)
    """Of each remembered step, the share of its places whose label the model found likeliest."""

    def figures(self, usd_per_hour: float | None = None) -> dict[str, Any]:
        """What progress shows and the run records."""
        seconds = max(self.elapsed_s, 1e-9)
        found = {
            "loss": float(np.mean(self.losses[-_REMEMBERED_STEPS:])),
            "train_accuracy": float(np.mean(self.right[-_REMEMBERED_STEPS:])),
            "rows_per_s": self.rows / seconds,
            "tokens_per_s": self.tokens / seconds,
        }
        return found if usd_per_hour is None else found | {"usd": usd_per_hour * seconds / 3600}


def train_worker(config: dict[str, Any]) -> dict[str, Any]:
    """Train one model, on from its latest checkpoint; rank 0 reports the fp32 weights.

    Args:
        config: `job` (a TrainingJob) and `examples` (an object reference to Examples).

    Returns:
        Figures of the loop, CPU seconds and Ray node of each worker among them; or `fault`, an
        EquipoiseError that no restart of the workers would mend.
    """
    import ray
    import ray.train
    import torch

    cpu_begun = time.process_time()
    job: TrainingJob = config["job"]
    examples: Examples = ray.get(config["examples"])
    rank = ray.train.get_context().get_world_rank()
    torch.set_num_threads(max(1, int(os.environ.get("OMP_NUM_THREADS", "1"))))
    try:
        loop = Loop(job, examples, rank, ray.train.get_context().get_world_size())
        loop.run()
    except (ModelError, TrainingDivergedError) as error:
        return {"fault": error}
    except CheckpointFaultError as error:
        return {"fault": error.cause}
    cpu_s = [0.0] * loop.workers
    torch.distributed.all_gather_object(cpu_s, time.process_time() - cpu_begun)
    nodes = [""] * loop.workers
    torch.distributed.all_gather_object(nodes, ray.get_runtime_context().get_node_id())
    figures = loop.position.figures() | {
        "loop_s": loop.position.elapsed_s,
        "started_step": loop.started_step,
        "settled_rows_per_s": loop.settled_rows_per_s,
        "worker_cpu_s": cpu_s,
        "worker_nodes": nodes,
    }
    _report_model(loop, figures)
    return figures


class Loop:
    """One worker's part of a training; every worker goes through the same steps.

    Needs an initialized torch.distributed group.
    """

    def __init__(self, job: TrainingJob, examples: Examples, rank: int, workers: int) -> None:
        import torch

        os.environ["DS_ACCELERATOR"] = "cuda" if job.on_gpus and torch.cuda.is_available() else "cpu"
        import deepspeed

        from equipoise.training.compiled_ops import load_ops
        from equipoise.training.fake_quantizers import add_quantizers
        from equipoise.training.held_zeros import hold_zeros
        from equipoise.training.initialization import freeze_embeddings, load_initial_model
        from equipoise.training.lora import add_adapters

        self.job, self.examples, self.rank, self.workers = job, examples, rank, workers
        self.timetable = Timetable(job.checkpoint_every_steps, job.checkpoint_every_s)
        self.store = CheckpointStore(Path(job.checkpoints)) if job.checkpoints else None
        load_ops(job.deepspeed)
        # The same seed on every rank: a new head and adapters must start equal everywhere.
        with torch.random.fork_rng():
            torch.manual_seed(job.seed)
            model: Any = load_initial_model(job.model_folder, job.model_class, job.labels, job.layers)
            if job.lora is not None:
                add_adapters(model, job.lora, new_head=job.labels is not None)
        frozen = freeze_embeddings(model) if job.freeze_embeddings else []
        self.original = {
            name: value.detach().clone() for name, value in model.named_parameters() if name in frozen
        }
        if job.quantizers:
            model = add_quantizers(model, examples, job.seed)
        if job.sparse:
            hold_zeros(model)
        if job.gradient_checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        self.guide: Guide | None = None
        if job.guidance is not None:
            teacher: Any = None
            if examples.teacher_states is None:
                teacher = load_initial_model(job.guidance.teacher, job.model_class, None, None)
                teacher.eval().requires_grad_(False)
            self.guide = Guide(job.guidance, model, teacher)
        latest = self._agree_on_checkpoint(torch)
        if latest is not None:
            load_weights(model, latest)
        self.engine, _, _, _ = deepspeed.initialize(
            model=model,
            model_parameters=[p for p in model.parameters() if p.requires_grad],
            config=fit_to_workers(job.deepspeed, job.batch_size, workers),
        )
        self.engine.train()
        self.dtype = next(self.engine.module.parameters()).dtype
        if self.guide is not None and self.guide.teacher is not None:
            self.guide.teacher.to(self.engine.device, self.dtype)
        self.position = Position() if latest is None else Position(**read_state(self.engine, latest))
        self._middle = (self.position.rows, self.position.elapsed_s)
        self.started_step = self.position.step
        self._rate = 0.0

    def run(self) -> None:
        """All steps that are left.

        Raises:
            TrainingDivergedError: on every rank alike, at a step whose loss is not finite.
        """
        job, at = self.job, self.position
        before_s, started = at.elapsed_s, time.perf_counter()
        middle = at.step + (job.total_steps - at.step) // 2
        for step, batch in batches_from(
            self.examples.lengths, job.batch_size, job.seed, at.step, job.total_steps
        ):
            loss, right = self.step(step, batch)
            due = self.rank == 0 and self.store is not None and self.timetable.due(step + 1)
            loss, right, asked = self._sum(loss / self.workers, right, float(due))
            if not np.isfinite(loss):
                raise self._diverged(step, batch)
            at.step, at.rows = step + 1, at.rows + len(batch)
            at.tokens += int(self.examples.lengths[batch].sum())
            at.losses = [*at.losses[1 - _REMEMBERED_STEPS :], loss]
            places = int(self.examples.places[batch].sum())
            at.right = [*at.right[1 - _REMEMBERED_STEPS :], right / max(places, 1)]
            at.elapsed_s = before_s + time.perf_counter() - started
            if at.step == middle:
                self._middle = (at.rows, at.elapsed_s)
            if asked and at.step < job.total_steps:
                self._put_checkpoint()
            if self.rank == 0:
                figures: dict[str, Any] = at.figures(self.usd_per_hour)
                progress.tell(job.title, at.step, job.total_steps, **figures)

    @property
    def usd_per_hour(self) -> float | None:
        """What this group's cores cost; an elastic one may have fewer workers than it asked for."""
        each = self.job.worker_usd_per_hour
        return None if each is None else each * self.workers

    @property
    def settled_rows_per_s(self) -> float:
        """Rows a second in the second half of the steps, when whatever is made at first is there."""
        rows, seconds = self._middle
        return (self.position.rows - rows) / max(self.position.elapsed_s - seconds, 1e-9)

    def step(self, step: int, batch: NDArray[np.int64]) -> tuple[float, float]:
        """One step of the optimizer on this worker's share of a batch: its weighted loss and places right."""
        import torch

        # Seeded by step, so that a resumed training drops out what an uninterrupted one does.
        torch.manual_seed(np.random.SeedSequence([self.job.seed, step, self.rank]).generate_state(1)[0])
        parts = self.engine.gradient_accumulation_steps()
        self._rate = float(self.engine.get_lr()[0])
        total, right = 0.0, 0.0
        for part in range(parts):
            share = worker_share(
                batch, self.rank + part * self.workers, self.workers * parts, self.examples.places
            )
            taken = take_batch(self.examples, share[0], self.engine.device, self.dtype)
            # At weight 0 it is another worker's row.
            with contextlib.nullcontext() if share[1] else kept_statistics(self.engine.module):
                outputs = self.engine(**taken.inputs, **(self.guide.options if self.guide else {}))
            loss = compute_loss(outputs.logits, taken, self.job.objective)
            if self.guide is not None:
                loss = loss + self.guide.loss(taken.inputs, outputs, taken.mask, taken.teacher_states)
            loss = loss * share[1]
            self.engine.backward(loss)
            self._apply(step, batch)
            total += float(loss.detach()) / parts
            right += float(count_right(outputs.logits, taken.targets)) if share[1] else 0.0
        return total, right

    def _apply(self, step: int, batch: NDArray[np.int64]) -> None:
        try:
            self.engine.step()
        except Exception as error:
            # DeepSpeed's fp16 gives up with a bare Exception once no loss scale is left to try.
            if "loss scale already at minimum" in str(error):
                raise self._diverged(step, batch) from error
            raise

    def _diverged(self, step: int, batch: NDArray[np.int64]) -> TrainingDivergedError:
        # One line names some; the worker's own log has them all.
        _log.error("rows of step %d, whose loss is not finite: %s", step, batch.tolist())
        rows = ", ".join(map(str, batch[:16].tolist())) + (
            f" and {len(batch) - 16} more" if len(batch) > 16 else ""
        )
        return TrainingDivergedError(
            f"the loss is not finite at step {step}: rows {rows}, learning rate {self._rate:.2e}",
            where=self.job.title,
            remedy="lower training.learning_rate, or use precision fp32",
        )

    def write_model(self, folder: Path | None) -> None:
        """Write the trained model, adapters merged; collective, `folder` is None on all ranks but one."""
        if self.job.lora is None:
            write_model(self.engine, self.original, folder)
        else:
            write_merged(self.engine, self.original, self.job, folder)

    def _put_checkpoint(self) -> None:
        """Write a checkpoint; a fault of the one writer stops every rank."""
        gathered = gather_state(self.engine, self.original, keep=self.rank == 0)
        fault: EquipoiseError | None = None
        if self.rank == 0 and self.store is not None:
            position = asdict(self.position)
            try:
                self.store.put(
                    self.position.step, lambda folder: write_state(self.engine, gathered, folder, position)
                )
            except EquipoiseError as error:
                fault = error
        (failed,) = self._sum(float(fault is not None))
        if failed:
            raise CheckpointFaultError(fault)
        self.timetable.done()

    def _agree_on_checkpoint(self, torch: Any) -> Path | None:
        """The newest checkpoint that rank 0 sees."""
        if self.store is None:
            return None
        found = self.store.latest()
        device = "cuda" if os.environ["DS_ACCELERATOR"] == "cuda" else "cpu"
        newest = torch.tensor([-1 if found is None else found], device=device)
        torch.distributed.broadcast(newest, 0)
        return None if newest.item() < 0 else self.store.at(int(newest.item()))

    def _sum(self, *values: float) -> list[float]:
        """Sums over all ranks."""
        import torch

        together = torch.tensor(values, dtype=torch.float64, device=self.engine.device)
        torch.distributed.all_reduce(together)
        return [float(value) for value in together]


class CheckpointFaultError(Exception):
    """A checkpoint could not be written; `cause` is set on the rank that wrote."""

    def __init__(self, cause: EquipoiseError | None) -> None:
        super().__init__(str(cause))
        self.cause = cause


def _report_model(loop: Loop, figures: dict[str, Any]) -> None:
    """Report the model folder from rank 0."""
    import ray.train

    if loop.rank != 0:
        loop.write_model(None)
        ray.train.report(dict(figures), checkpoint=None)
        return
    with tempfile.TemporaryDirectory() as scratch:
        loop.write_model(Path(scratch))
        ray.train.report(dict(figures), checkpoint=ray.train.Checkpoint.from_directory(scratch))
