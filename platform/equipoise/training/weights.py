"""The trained weights in fp32, gathered from wherever DeepSpeed keeps them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from equipoise.engines.widths import STRUCTURE_FILE
from equipoise.training.fake_quantizers import LEVELS_FILE, PLACES_FILE, split_quantizers, write_quantizers

MODEL_FILES = ("config.json", "model.safetensors", STRUCTURE_FILE, LEVELS_FILE, PLACES_FILE)


def full_weights(engine: Any, original: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Every parameter whole, in fp32 on the CPU; collective: each worker goes through all of them.

    Then the buffers that belong to the weights, such as the running means of a BatchNorm.

    Args:
        original: parameters that were not trained, by name, as they were loaded.
    """
    from deepspeed.utils import safe_get_full_fp32_param

    copies = fp32_copies(engine)
    for name, parameter in engine.module.named_parameters():
        full = original.get(name)
        if full is None:
            full = copies.get(id(parameter))
        if full is None:
            full = safe_get_full_fp32_param(parameter)
        if full is None:
            full = parameter.detach()
        yield name, full.detach().float().cpu().contiguous()
    kept = engine.module.state_dict().keys()
    for name, buffer in engine.module.named_buffers():
        if name in kept:
            yield name, (buffer.float() if buffer.is_floating_point() else buffer).cpu().contiguous()


def fp32_copies(engine: Any) -> dict[int, Any]:
    """fp32 copies of half-precision parameters where nothing is sharded (stage 0), by the parameter's id."""
    low, high = (getattr(engine.optimizer, name, []) for name in ("fp16_groups", "fp32_groups"))
    return {
        id(a): b for lows, highs in zip(low, high, strict=False) for a, b in zip(lows, highs, strict=True)
    }


def write_model(engine: Any, original: dict[str, Any], folder: Path | None) -> None:
    """Write config.json and model.safetensors, and the quantizers where the model has some.

    Collective; `folder` is None on all ranks but one.
    """
    from safetensors.torch import save_file

    from equipoise.engines.narrowing import put_widths

    state: dict[str, Any] = {}
    for name, value in full_weights(engine, original):
        if folder is not None:
            state[name] = value.clone()
    if folder is None:
        return
    state, levels = split_quantizers(state)
    if levels:
        write_quantizers(engine.module, levels, folder)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    put_widths(engine.module, folder)
    engine.module.config.architectures = [type(engine.module).__name__]
    engine.module.config.save_pretrained(folder)
