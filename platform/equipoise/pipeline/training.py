"""Parts of a run by themselves: the teacher, or one student; both stand in the run folder afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from equipoise import ray_runtime
from equipoise.config import load_config
from equipoise.errors import ConfigError
from equipoise.pipeline.display import Display
from equipoise.pipeline.preflight import Checked
from equipoise.pipeline.run import Stages, run_stages
from equipoise.pipeline.session import Session
from equipoise.runs import Recipe, RunFolder


def finetune_file(file: str | Path, out: str | None, display: Display) -> Path:
    """Fine-tune the teacher of a run config, or go on with it; `equipoise run` goes on from there.

    Returns:
        The teacher's folder.
    """
    from equipoise.pipeline.teacher import train_teacher

    def stages(session: Session, checked: Checked) -> None:
        train_teacher(session, checked)

    return _run(file, out, display, stages).local("teacher")


def distill_file(file: str | Path, out: str | None, layers: Sequence[int], display: Display) -> Path:
    """Distil the student that starts from the given layers of the teacher, which is fine-tuned first.

    Returns:
        The student's folder.

    Raises:
        ConfigError: the teacher has no such layers, or they are all of them.
    """
    from equipoise.compression.structure import read_layers, structure_key

    recipe = Recipe(depth=len(layers), layers=tuple(layers), distilled=True, engine="torch", precision="fp32")

    def stages(session: Session, checked: Checked) -> None:
        from equipoise.pipeline.teacher import train_teacher
        from equipoise.search.trial import train_structure

        depth, required = read_layers(checked.base)
        _check_layers(layers, depth, required)
        context = train_teacher(session, checked)
        train_structure(context, recipe, session.ledger)

    return _run(file, out, display, stages).local("students", structure_key(recipe))


def _run(file: str | Path, out: str | None, display: Display, stages: Stages) -> RunFolder:
    ray_runtime.prepare_environment()
    config = load_config(file)
    run = RunFolder(out or config.run_folder)
    run_stages(config, run, display, stages)
    return run


def _check_layers(layers: Sequence[int], depth: int, required: Sequence[int]) -> None:
    wrong = [layer for layer in layers if layer >= depth]
    missing = [layer for layer in required if layer not in layers]
    if wrong or list(layers) != sorted(set(layers)) or not 0 < len(layers) < depth or missing:
        raise ConfigError(
            f"are no student of a teacher with {depth} layers",
            where="layers",
            value=",".join(map(str, layers)),
            remedy=f"give some of 0 to {depth - 1}, ascending"
            + (f", {','.join(map(str, required))} among them" if required else ""),
        )
