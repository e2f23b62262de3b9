"""Which of the teacher's layers a student keeps."""

from __future__ import annotations

import hashlib
import json

from equipoise.errors import ConfigError
from equipoise.runs import Recipe


def student_layers(teacher_depth: int, depth: int, choice: str) -> tuple[int, ...]:
    """Layer numbers of a student, counted from 0, in the teacher's order.

    `first` and `last` take that end of the stack; `spread` takes evenly spaced layers, the first
    and the last among them (Sajjad et al., 2020, compare such choices).

    Raises:
        ConfigError: the teacher has fewer layers.
    """
    if not 1 <= depth <= teacher_depth:
        raise ConfigError(
            f"the teacher has {teacher_depth} layers",
            where="search.depths",
            value=depth,
            remedy=f"use 1 to {teacher_depth}",
        )
    if choice == "first":
        return tuple(range(depth))
    if choice == "last":
        return tuple(range(teacher_depth - depth, teacher_depth))
    if depth == 1:
        return (0,)
    return tuple(round(i * (teacher_depth - 1) / (depth - 1)) for i in range(depth))


def recipe_hash(recipe: Recipe) -> str:
    """Names a recipe: 12 hex digits over its canonical JSON."""
    content = json.dumps(recipe.model_dump(mode="json"), sort_keys=True).encode()
    return hashlib.sha256(content).hexdigest()[:12]


def structure_key(layers: tuple[int, ...]) -> str:
    """Folder name of a trained structure, such as `layers-0-5`."""
    return "layers-" + "-".join(map(str, layers))
