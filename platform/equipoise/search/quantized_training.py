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
from equipoise.placement import find_placement
from equipoise.runs import Recipe, RunFolder
from equipoise.search.context import TrialContext, encoded_folder
from equipoise.search.turns import ALONE, TRAINING, Turns

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
    context: TrialContext, recipe: Recipe, source: Path, ledger: LedgerWriter, turns: Turns = ALONE
) -> tuple[Path, float]:
    """The folder of the structure's weights and quantizers, trained once, and the seconds that took.

    Another trial that needs the same waits, and finds it trained.

    Args:
        source: the structure's trained torch model folder.
    """
    run = RunFolder(context.folder)
    key = f"{structure_key(recipe)}-{PRECISION}"
    folder = context.root / "students" / key
    with turns.hold(key):
        if not run.has("students", key, "trained.json"):
            with turns.hold(TRAINING):
                _train(context, recipe, source, ledger, folder, turns)
    return folder, float(run.read("students", key, "trained.json")["seconds"])


def _train(
    context: TrialContext, recipe: Recipe, source: Path, ledger: LedgerWriter, folder: Path, turns: Turns
) -> None:
    from equipoise.training.deepspeed_config import resolve_workers
    from equipoise.training.encoding import encode_examples
    from equipoise.training.finetune import train_quantized
    from equipoise.training.workers import trains_on_gpus

    # The cache of encoded rows is written by one trial at a time.
    with turns.hold("rows"):
        examples = encode_examples(
            context.load_task(vocabulary=recipe.vocabulary),
            context.lessons.inputs,
            context.lessons.labels,
            context.train_answers,
            encoded_folder(context.root),
        )
    shutil.rmtree(folder, ignore_errors=True)
    training = context.config.training
    workers = resolve_workers(training)
    start = time.perf_counter()
    with ledger.meter(
        "search",
        cores=workers,
        gpus=workers if trains_on_gpus(training) else 0,
        detail=f"train {recipe.structure} for int8",
        resource_type="worker",
        resource_id=f"{folder.name}/",
    ) as block:
        figures = train_quantized(
            context.config,
            source,
            f"training {recipe.structure} for int8",
            examples,
            folder,
            context.root / ".scratch",
            sparse=recipe.sparsity > 0,
            nodes=find_placement(context.config.search.serving_nodes).training,
        )
        block.worker_cpu_s = figures["worker_cpu_s"]
    trained = {**figures, "seconds": time.perf_counter() - start, "workers": workers}
    RunFolder(context.folder).put(trained, "students", folder.name, "trained.json")
