"""Recipes that the config writes down, as the structures and runtimes that they come to."""

from __future__ import annotations

from equipoise.compression.latency_table import Fitted
from equipoise.config.compression import Prune, Quantize, Step, steps_of
from equipoise.errors import ConfigError
from equipoise.runs import Recipe
from equipoise.search.shape import Shape, resolve_channels, resolve_ffn, resolve_heads


def written_recipe(steps: tuple[Step, ...], place: int, shape: Shape, fitted: Fitted | None = None) -> Recipe:
    """The recipe of a list of steps.

    Args:
        place: its number in `compression.recipes`, for faults.
        fitted: what was chosen for the recipe's target, once it was; until then the whole teacher stands
            for it.

    Raises:
        ConfigError: the teacher has no such layers, heads or neurons, or a step is missing.
    """
    where = f"compression.recipes.{place}"
    prune, run = steps_of(steps)
    distilled = any(step.distil is not None for step in steps)
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
    channels = resolve_channels(prune.channels, shape, f"{where}.prune.channels")
    if prune.timed:
        shape.need_widths(f"{where}.prune", "a target")
    if prune.vocabulary == "task":
        shape.check_vocabulary(f"{where}.prune.vocabulary")
    if fitted is not None:
        return _target_recipe(prune, run, fitted)
    narrowed = heads is not None or ffn is not None or channels is not None
    changed = prune.timed or layers != every or narrowed or prune.sparsity > 0
    if changed is not distilled:
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
        channels=channels,
        importance=prune.importance if narrowed else "taylor",
        vocabulary=prune.vocabulary,
        sparsity=prune.sparsity,
        target=_target(prune),
    )


def _target_recipe(prune: Prune, run: Quantize, fitted: Fitted) -> Recipe:
    """The recipe of a structure that was chosen for a target."""
    return Recipe(
        depth=len(fitted.layers),
        layers=fitted.layers,
        distilled=True,
        engine=run.engine,
        precision=run.precision,
        heads=fitted.heads,
        ffn=fitted.ffn,
        importance=prune.importance,
        vocabulary=prune.vocabulary,
        sparsity=prune.sparsity,
        target=_target(prune),
    )


def _target(prune: Prune) -> str | None:
    if prune.speedup is not None:
        return f"speedup {prune.speedup:g}"
    return f"p99 {prune.p99_ms:g} ms" if prune.p99_ms is not None else None
