"""Which tokens end a text by a model's own configs."""

from __future__ import annotations

from typing import Any


def end_ids_of(model: Any) -> tuple[int, ...]:
    """Of a model of transformers: those that its config and its generation config name, in order."""
    found: set[int] = set()
    for config in (model.config, getattr(model, "generation_config", None)):
        held = getattr(config, "eos_token_id", None)
        found.update(token for token in (held if isinstance(held, list) else [held]) if token is not None)
    return tuple(sorted(found))
