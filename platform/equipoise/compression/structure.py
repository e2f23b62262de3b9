"""Which of the teacher's layers a student keeps."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from equipoise import storage
from equipoise.engines.architectures import build_without_weights, read_config
from equipoise.errors import ConfigError, ModelError
from equipoise.runs import Recipe

_FAMILIES = "give a model of the BERT, Llama, GPT-2, ViT or ResNet family"


def read_layers(folder: Path) -> tuple[int, tuple[int, ...]]:
    """Number of a model's layers, and those that no student can do without.

    A transformer can lose any of its layers; what its config calls their number, `n_layer` of a GPT-2 say,
    transformers knows. A ResNet's layers are its residual blocks, counted through all stages; the first
    block of a stage changes width and size, so it stays.

    Raises:
        ModelError: the config is of no type that transformers knows, or names neither layers nor stages.
        InputError: it is not JSON.
    """
    storage.read_json(str(folder / "config.json"))
    try:
        config = read_config(folder)
    except ValueError as error:
        raise ModelError(
            "transformers knows no model of the type that its config.json names",
            where="model.teacher",
            value=str(folder),
            remedy=_FAMILIES,
        ) from error
    depths = getattr(config, "depths", None)
    if isinstance(depths, list | tuple):
        return sum(depths), tuple(sum(depths[:stage]) for stage in range(len(depths)))
    count = getattr(config, "num_hidden_layers", None)
    if not isinstance(count, int):
        raise ModelError(
            "its config.json names neither num_hidden_layers nor depths",
            where="model.teacher",
            value=str(folder),
            remedy=_FAMILIES,
        )
    return count, ()


def check_stack(folder: Path, model_class: str) -> None:
    """Refuse a model whose layers cannot be told apart, by its build alone: no weight is read.

    Raises:
        ModelError: students of fewer layers cannot be made of it.
    """
    from equipoise.engines.narrowing import find_stack

    config = read_config(folder)
    if hasattr(config, "depths"):
        return
    model = build_without_weights(config, model_class)
    try:
        find_stack(model)
    except ModelError as error:
        raise ModelError(
            f"layers of a {config.model_type} are not known, and students of fewer are asked for",
            where="model.teacher",
            value=str(folder),
            remedy=f"{_FAMILIES}, or set search.depths to [{read_layers(folder)[0]}]",
        ) from error


def student_layers(
    teacher_depth: int, depth: int, choice: str, required: tuple[int, ...] = ()
) -> tuple[int, ...]:
    """Layer numbers of a student, counted from 0, in the teacher's order.

    `first` and `last` take that end of the stack; `spread` takes evenly spaced layers, the first
    and the last among them (Sajjad et al., 2020, compare such choices). Where layers are required,
    they are taken, and the choice is among the others.

    Raises:
        ConfigError: the teacher has fewer layers, or more of them are required.
    """
    least = max(1, len(required))
    if not least <= depth <= teacher_depth:
        stages = f", of which {len(required)} begin a stage and must stay" if required else ""
        raise ConfigError(
            f"the teacher has {teacher_depth} layers{stages}",
            where="search.depths",
            value=depth,
            remedy=f"use {least} to {teacher_depth}",
        )
    others = [layer for layer in range(teacher_depth) if layer not in required]
    wanted = depth - len(required)
    if choice == "first":
        chosen = others[:wanted]
    elif choice == "last":
        chosen = others[len(others) - wanted :]
    elif wanted == 1:
        chosen = others[:1]
    else:
        chosen = [others[round(i * (len(others) - 1) / (wanted - 1))] for i in range(wanted)]
    return tuple(sorted((*required, *chosen)))


def recipe_hash(recipe: Recipe) -> str:
    """Names a recipe: 12 hex digits over its canonical JSON.

    What a recipe leaves at its default is left out, so that a recipe keeps its name when records gain
    a field.
    """
    content = json.dumps(recipe.model_dump(mode="json", exclude_defaults=True), sort_keys=True).encode()
    return hashlib.sha256(content).hexdigest()[:12]


def structure_key(recipe: Recipe) -> str:
    """Folder name of a trained structure, such as `layers-0-5` or `layers-0-5-ffn-768`."""
    parts = ["layers", *map(str, recipe.layers)]
    for name, counts in (("heads", recipe.heads), ("ffn", recipe.ffn), ("channels", recipe.channels)):
        if counts is not None:
            parts += [name, *map(str, counts[:1] if len(set(counts)) == 1 else counts)]
    if recipe.narrowed and recipe.importance != "taylor":
        parts.append(recipe.importance)
    if recipe.vocabulary != "full":
        parts.append("vocabulary")
    if recipe.sparsity:
        parts.append(f"zeros-{recipe.sparsity:g}")
    if recipe.recovery < 1:
        parts.append(f"recovery-{recipe.recovery:g}")
    return "-".join(parts)
