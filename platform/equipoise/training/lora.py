"""Low-rank adapters through peft: put into a model, trained alone, merged into its weights."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from equipoise.errors import ConfigError

if TYPE_CHECKING:
    from equipoise.training.job import TrainingJob

_BASE = ".base_layer"
_ADAPTER = ".lora_"


def add_adapters(model: Any, settings: dict[str, Any], *, new_head: bool = False) -> None:
    """Put adapters into a model, in place; nothing else is trained but a new head.

    Args:
        settings: `rank`, `alpha`, `dropout` and `target_modules` of the config.
        new_head: train what stands outside the pretrained body whole.

    Raises:
        ConfigError: the model has none of the layers.
    """
    import peft

    targets = settings["target_modules"]
    config = peft.LoraConfig(
        r=settings["rank"],
        lora_alpha=settings["alpha"],
        lora_dropout=settings["dropout"],
        target_modules=targets if isinstance(targets, str) else list(targets),
    )
    try:
        with warnings.catch_warnings():
            # It finds by itself that GPT-2's layers are transposed, and warns that it did.
            warnings.filterwarnings("ignore", message="fan_in_fan_out")
            peft.inject_adapter_in_model(config, model)
    except ValueError as error:
        raise ConfigError(
            "the model has no such layers",
            where="training.lora.target_modules",
            value=targets,
            remedy="all-linear, or the last part of the names of its linear layers, such as q_proj",
        ) from error
    if new_head:
        body = {id(parameter) for parameter in model.base_model.parameters()}
        for parameter in model.parameters():
            if id(parameter) not in body:
                parameter.requires_grad_(True)


def write_merged(engine: Any, original: dict[str, Any], job: TrainingJob, folder: Path | None) -> None:
    """Write config.json and model.safetensors with the adapters merged in fp32.

    The weights that were not trained are read again: the engine may hold them in half precision.
    Collective; `folder` is None on all ranks but one.
    """
    from safetensors.torch import save_file

    from equipoise.training.initialization import load_initial_model
    from equipoise.training.weights import full_weights

    trained = {name for name, parameter in engine.module.named_parameters() if parameter.requires_grad}
    kept: dict[str, Any] = {}
    for name, value in full_weights(engine, original):
        if folder is not None and name in trained:
            kept[name] = value.clone()
    if folder is None:
        return
    model = load_initial_model(job.model_folder, job.model_class, job.labels, job.layers)
    add_adapters(model, job.lora or {}, new_head=job.labels is not None)
    model.load_state_dict(kept, strict=False)
    save_file(merge_adapters(model), folder / "model.safetensors", metadata={"format": "pt"})
    config: Any = model.config
    config.architectures = [type(model).__name__]
    config.save_pretrained(folder)


def merge_adapters(model: Any) -> dict[str, Any]:
    """Add a model's adapters to its weights, in place; returns the weights by the names they had before."""
    import torch
    from peft.tuners.tuners_utils import BaseTunerLayer

    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, BaseTunerLayer):
                module.merge()
    saved = model.state_dict().keys()
    buffers = [(name, buffer) for name, buffer in model.named_buffers() if name in saved]
    return {
        name.replace(_BASE, ""): value.detach().contiguous()
        for name, value in (*model.named_parameters(), *buffers)
        if _ADAPTER not in name
    }
