"""What a model has inside while it answers: hidden states, and the queries, keys and values of attention."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

Tensor = Any
"""torch's; its own operators are annotated as Any."""

PROJECTIONS = ("query", "key", "value")

_SEPARATE = (("query", "key", "value"), ("q_proj", "k_proj", "v_proj"), ("q_lin", "k_lin", "v_lin"))
_JOINT = ("c_attn", "Wqkv")


def find_projections(model: Any) -> list[tuple[Any, ...]]:
    """Of each layer the modules that make queries, keys and values: three, or one that makes them all."""
    return [modules for _, modules in _find_attention(model)]


def is_causal(model: Any) -> bool:
    """Whether no position of a model looks at a later one, as its attention says itself."""
    owners = [owner for owner, _ in _find_attention(model)]
    return bool(owners) and all(getattr(owner, "is_causal", False) for owner in owners)


class Inside:
    """Reads some layers of a model after each of its forward passes.

    Args:
        model: hooks stay on it.
        layers: counted from 0.
        hidden: read hidden states; the model is then to be called with `options`.
        projections: read queries, keys and values.
    """

    def __init__(self, model: Any, layers: Iterable[int], *, hidden: bool, projections: bool) -> None:
        self.layers = sorted(set(layers))
        self.hidden, self.projections = hidden, projections
        self.options: dict[str, Any] = {"output_hidden_states": True} if hidden else {}
        self._seen: dict[int, list[Any]] = {}
        if projections:
            modules = find_projections(model)
            for layer in self.layers:
                for part, module in enumerate(modules[layer]):
                    module.register_forward_hook(self._keep(layer, part))

    def read(self, outputs: Any) -> dict[str, Tensor]:
        """By `inside_names`, tensors of (rows, longest, width) but for an image model's hidden states.

        Args:
            outputs: of the forward pass just done.
        """
        found: dict[str, Tensor] = {}
        for layer in self.layers:
            parts: list[Any] = []
            if self.hidden:
                # The first hidden state is the embeddings'.
                parts.append(outputs.hidden_states[layer + 1])
            if self.projections:
                seen = self._seen[layer]
                parts += seen[0].chunk(3, dim=-1) if len(seen) == 1 else seen
            names = inside_names([layer], hidden=self.hidden, projections=self.projections)
            found |= zip(names, parts, strict=True)
        return found

    def _keep(self, layer: int, part: int) -> Any:
        def hook(_module: Any, _inputs: Any, output: Any) -> None:
            # Recomputation in the backward pass comes here again; the first part starts anew.
            held = [] if part == 0 else self._seen.get(layer, [])
            self._seen[layer] = [*held, output]

        return hook


def inside_names(layers: Iterable[int], *, hidden: bool, projections: bool) -> tuple[str, ...]:
    """`KIND.LAYER` of all that is read of some layers, counted from 0."""
    kinds = ["hidden"] * hidden + list(PROJECTIONS) * projections
    return tuple(f"{kind}.{layer}" for layer in sorted(set(layers)) for kind in kinds)


def _find_attention(model: Any) -> list[tuple[Any, tuple[Any, ...]]]:
    """The attention of each layer, with its modules that make queries, keys and values."""
    found: list[tuple[Any, tuple[Any, ...]]] = []
    for module in model.modules():
        for names in _SEPARATE:
            if all(hasattr(module, name) for name in names):
                found.append((module, tuple(getattr(module, name) for name in names)))
        for name in _JOINT:
            if hasattr(module, name):
                found.append((module, (getattr(module, name),)))
    return found
