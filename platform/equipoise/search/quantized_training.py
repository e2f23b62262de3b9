"""Training a structure on for int8: once a structure, on top of what its other precisions share."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from equipoise import hardware
from equipoise.compression.structure import structure_key
from equipoise.config import RunConfig
from equipoise.costs.ledger_writer import LedgerWriter
from equipoise.errors import ConfigError
from equipoise.runs import Recipe, RunFolder
from equipoise.search.context import TrialContext, encoded_folder

PRECISION = "int8_qat"


def check_trainable(config: RunConfig, where: str) -> None:
    """Refuse quantization-aware training where it cannot be.

    Raises:
        ConfigError: parameters are sharded, which nncf's hooks do not gather; or there is no compiler, which
            its rounding is built with at first use.
    """
    if config.training.zero_stage == 3:
        raise ConfigError(
            "quantizers cannot be trained on sharded parameters",
            where=where,
            value=PRECISION,
            remedy="use training.zero_stage 2, or int8_guarded",
        )
    if not hardware.has_compiler():
        raise ConfigError(
            "nncf builds its quantizers with a C++ compiler, and there is none",
            where=where,
            value=PRECISION,
            remedy="install g++, or use int8_guarded",
        )


def train_for_int8(
    context: TrialContext, recipe: Recipe, source: Path, ledger: LedgerWriter
) -> tuple[Path, float]:
    """The folder of the structure's weights and quantizers, trained once, and the seconds that took.

    Args:
        source: the structure's trained torch model folder.
    """
    from equipoise.training.deepspeed_config import resolve_workers
    from equipoise.training.encoding import encode_examples
    from equipoise.training.finetune import train_quantized

    run = RunFolder(context.folder)
    key = f"{structure_key(recipe)}-{PRECISION}"
    folder = context.root / "students" / key
    if not run.has("students", key, "trained.json"):
        examples = encode_examples(
            context.load_task(vocabulary=recipe.vocabulary),
            context.lessons.inputs,
            context.lessons.labels,
            context.train_answers,
            encoded_folder(context.root),
        )
        shutil.rmtree(folder, ignore_errors=True)
        workers = resolve_workers(context.config.training)
        start = time.perf_counter()
        with ledger.meter(
            "search",
            cores=workers,
            gpus=workers if hardware.describe_hardware()["gpus"] else 0,
            detail=f"train {recipe.structure} for int8",
            resource_type="worker",
            resource_id=f"{key}/",
        ) as block:
            figures = train_quantized(
                context.config,
                source,
                f"training {recipe.structure} for int8",
                examples,
                folder,
                context.root / ".scratch",
                sparse=recipe.sparsity > 0,
            )
            block.worker_cpu_s = figures["worker_cpu_s"]
        trained = {**figures, "seconds": time.perf_counter() - start, "workers": workers}
        run.put(trained, "students", key, "trained.json")
    return folder, float(run.read("students", key, "trained.json")["seconds"])
