"""Recipes that the config writes down, as the structures and runtimes that they come to."""

from __future__ import annotations

from collections.abc import Sequence

from equipoise.config.compression import Distil, Prune, Quantize, Step
from equipoise.errors import ConfigError
from equipoise.runs import Recipe
from equipoise.search.shape import Shape, resolve_ffn, resolve_heads


def written_recipe(steps: Sequence[Step], place: int, shape: Shape) -> Recipe:
    """The recipe of a list of steps.

    Args:
        place: its number in `compression.recipes`, for faults.

    Raises:
        ConfigError: the teacher has no such layers, heads or neurons, or a step is missing.
    """
    where = f"compression.recipes.{place}"
    prune = next((step.prune for step in steps if step.prune), Prune())
    distil: Distil | None = next((step.distil for step in steps if step.distil), None)
    run = next((step.quantize for step in steps if step.quantize), Quantize(engine="torch", precision="fp32"))
    every = tuple(range(shape.depth))
    layers = every if prune.layers is None else prune.layers
    missing = [layer for layer in shape.required if layer not in layers]
    if list(layers) != sorted(set(layers)) or not set(layers) <= set(every) or missing:
        raise ConfigError(
            f"are no layers of a teacher with {shape.depth}",
            where=f"{where}.prune.layers",
            value=list(layers),
            remedy=f"give some of 0 to {shape.depth - 1}, ascending"
            + (f", {list(shape.required)} among them" if missing else ""),
        )
    heads = resolve_heads(prune.heads, layers, shape, f"{where}.prune.heads")
    ffn = resolve_ffn(prune.ffn, layers, shape, f"{where}.prune.ffn")
    if prune.vocabulary == "task":
        shape.check_vocabulary(f"{where}.prune.vocabulary")
    changed = layers != every or heads is not None or ffn is not None
    if changed is not (distil is not None):
        raise ConfigError(
            "a pruned student has to be distilled"
            if changed
            else "nothing is pruned that distilling would mend",
            where=where,
            value=[step.name for step in steps],
            remedy="add the step distil after prune" if changed else "leave the step distil out",
        )
    return Recipe(
        depth=len(layers),
        layers=layers,
        distilled=changed,
        engine=run.engine,
        precision=run.precision,
        heads=heads,
        ffn=ffn,
        importance=prune.importance if heads is not None or ffn is not None else "taylor",
        vocabulary=prune.vocabulary,
    )
