"""Running a training job on Ray Train and putting its weights in place."""

from __future__ import annotations

import logging
import shutil
import threading
import uuid
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

from equipoise import storage
from equipoise.config.training import TrainingConfig
from equipoise.errors import EquipoiseError, RetryableError
from equipoise.training.checkpoints import CheckpointStore
from equipoise.training.examples import Examples
from equipoise.training.job import TrainingJob
from equipoise.training.loop import train_worker
from equipoise.training.weights import MODEL_FILES
from equipoise.training.workers import scaling_options

DEEPSPEED_FILE = "deepspeed.json"
"""In a model folder: the DeepSpeed config that it was trained by."""

_log = logging.getLogger(__name__)


def fit(
    job: TrainingJob,
    examples: Examples,
    target: Path,
    *,
    training: TrainingConfig,
    scratch: Path,
    nodes: dict[str, str] | None = None,
) -> dict[str, Any]:
    """Train on Ray Train workers and write the model folder at once; before, it holds `deepspeed.json` alone.

    What a killed try of the same job saved is gone on from. Trainings of other jobs may run beside it.

    Args:
        target: the model folder: config.json, model.safetensors, deepspeed.json.
        scratch: a folder for checkpoints and Ray Train's own state; this job's are gone when it is done.
        nodes: Ray labels of the nodes that workers may run on; none is every node.

    Returns:
        The loop's figures.

    Raises:
        TrainingDivergedError: the loss is not finite.
        StorageError: a checkpoint did not fit on the disk.
        RetryableError: workers could not start or died more often than `training.retries`.
    """
    import ray
    import ray.train
    from ray.train.torch import TorchConfig, TorchTrainer

    digest = job.digest(examples)
    # Of a killed try of this job; others may be at work.
    for left in scratch.glob(f"fit-{digest}-*"):
        shutil.rmtree(left, ignore_errors=True)
    checkpoints = scratch / f"checkpoints-{digest}"
    job = replace(job, checkpoints=str(checkpoints))
    # Before any worker starts: who asks why a training failed needs it most.
    storage.put_json(str(target / DEEPSPEED_FILE), job.deepspeed)
    done = CheckpointStore(checkpoints).latest()
    if done is not None:
        _log.info("%s goes on from step %d", job.title, done)
    name = f"fit-{digest}-{uuid.uuid4().hex[:8]}"
    # Typed loosely: the annotations of Ray Train 2.60 are those of its first version.
    build: Any = TorchTrainer
    failures: Any = ray.train.FailureConfig
    scale: Any = ray.train.ScalingConfig
    trainer = build(
        train_worker,
        train_loop_config={"job": job, "examples": ray.put(examples)},
        torch_config=TorchConfig(backend="nccl" if job.on_gpus else "gloo"),
        scaling_config=scale(**scaling_options(training), label_selector=nodes or None),
        run_config=ray.train.RunConfig(
            storage_path=str(scratch),
            name=name,
            failure_config=failures(max_failures=training.retries, controller_failure_limit=2),
        ),
    )
    try:
        result = _fit_aside(trainer)
        fault = result.return_value.get("fault")
        if fault is not None:
            raise fault
        checkpoint = result.checkpoint
        if checkpoint is None:
            raise RetryableError("training ended without weights", where=job.title)

        def fill(folder: Path) -> None:
            with checkpoint.as_directory() as weights:
                shutil.copytree(weights, folder, dirs_exist_ok=True, ignore=_only_the_model)
            storage.put_json(str(folder / DEEPSPEED_FILE), job.deepspeed)

        storage.write_folder(target, fill)
        shutil.rmtree(checkpoints, ignore_errors=True)
        figures: dict[str, Any] = result.return_value
        return figures
    except ray.train.TrainingFailedError as error:
        raise _cause(error, job.title) from error
    finally:
        shutil.rmtree(scratch / name, ignore_errors=True)


def _fit_aside(trainer: Any) -> Any:
    """`trainer.fit()` in a thread of its own.

    On the main thread Ray Train takes Ctrl-C for itself, keeps it when it is done, and exits with 0.
    """
    outcome: Future[Any] = Future()

    def run() -> None:
        try:
            outcome.set_result(trainer.fit())
        except BaseException as error:  # noqa: BLE001 - raised again where the outcome is waited for
            outcome.set_exception(error)

    threading.Thread(target=run, name="ray-train", daemon=True).start()
    return outcome.result()


def _only_the_model(_: str, names: list[str]) -> set[str]:
    return {name for name in names if name not in MODEL_FILES}


def _cause(error: Exception, title: str) -> EquipoiseError:
    """The worker's own fault where it is one of ours, otherwise a retryable one."""
    failures = getattr(error, "worker_failures", {}) or {}
    for failure in failures.values():
        for fault in (failure, getattr(failure, "cause", None), failure.__cause__):
            if isinstance(fault, EquipoiseError):
                return fault
    last = next(iter(failures.values()), error)
    line = (str(last).strip().splitlines() or ["unknown"])[-1]
    return RetryableError(
        f"training failed: {line}", where=title, remedy="see the log; run again to continue"
    )
