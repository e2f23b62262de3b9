"""Classes and configs of models by name: those of transformers, and our own beside them."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any


def find_class(name: str) -> Any:
    """A model class, such as `AutoModelForImageClassification` or one that a config.json names."""
    import transformers

    return _own_classes().get(name) or getattr(transformers, name)


def read_config(folder: Path | str, **options: Any) -> Any:
    """The config of a model folder; `options` are laid over it.

    Raises:
        ValueError: no model of its type is known.
    """
    import transformers

    _own_classes()
    return transformers.AutoConfig.from_pretrained(folder, local_files_only=True, **options)


def build_without_weights(config: Any, model_class: str) -> Any:
    """A model of a config whose parameters have shapes alone; of any size in no time."""
    import torch

    with torch.device("meta"):
        return find_class(model_class).from_config(config)


@cache
def _own_classes() -> dict[str, Any]:
    """Our own models by name, made known to the Auto classes of transformers."""
    import transformers

    from equipoise.engines.efficientnet_lite import (
        EfficientNetLiteConfig,
        EfficientNetLiteForImageClassification,
        EfficientNetLiteModel,
    )

    kind = EfficientNetLiteConfig.model_type
    transformers.AutoConfig.register(kind, EfficientNetLiteConfig, exist_ok=True)
    transformers.AutoModel.register(EfficientNetLiteConfig, EfficientNetLiteModel, exist_ok=True)
    transformers.AutoModelForImageClassification.register(
        EfficientNetLiteConfig, EfficientNetLiteForImageClassification, exist_ok=True
    )
    return {"EfficientNetLiteForImageClassification": EfficientNetLiteForImageClassification}
