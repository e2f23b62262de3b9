"""Running a training job on Ray Train and putting its weights in place."""

from __future__ import annotations

import shutil
import threading
import uuid
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from equipoise import hardware, storage
from equipoise.errors import EquipoiseError, RetryableError
from equipoise.training.loop import Examples, TrainingJob, train_worker


def fit(job: TrainingJob, examples: Examples, target: Path, *, workers: int, scratch: Path) -> dict[str, Any]:
    """Train on `workers` Ray Train workers and write the model folder at once.

    Args:
        target: the model folder: config.json, model.safetensors, deepspeed.json.
        scratch: a folder for Ray Train's own state, emptied afterwards.

    Returns:
        The loop's figures.

    Raises:
        EquipoiseError: the training itself failed (a NaN loss).
        RetryableError: workers could not start or died.
    """
    import ray
    import ray.train
    from ray.train.torch import TorchConfig, TorchTrainer

    gpus = len(hardware.describe_hardware()["gpus"])
    name = f"fit-{uuid.uuid4().hex[:8]}"
    # Typed loosely: the annotations of Ray Train 2.60 are those of its first version.
    build: Any = TorchTrainer
    failures: Any = ray.train.FailureConfig
    trainer = build(
        train_worker,
        train_loop_config={"job": job, "examples": ray.put(examples)},
        torch_config=TorchConfig(backend="nccl" if gpus else "gloo"),
        scaling_config=ray.train.ScalingConfig(
            num_workers=workers, use_gpu=bool(gpus), resources_per_worker={"CPU": 1}
        ),
        run_config=ray.train.RunConfig(
            storage_path=str(scratch),
            name=name,
            failure_config=failures(max_failures=1, controller_failure_limit=2),
        ),
    )
    try:
        result = _fit_aside(trainer)
        checkpoint = result.checkpoint
        if checkpoint is None:
            raise RetryableError("training ended without weights", where=job.title)

        def fill(folder: Path) -> None:
            with checkpoint.as_directory() as weights:
                shutil.copytree(weights, folder, dirs_exist_ok=True, ignore=_only_the_model)
            storage.put_json(str(folder / "deepspeed.json"), job.deepspeed)

        storage.write_folder(target, fill)
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
    return {name for name in names if name not in ("config.json", "model.safetensors")}


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
