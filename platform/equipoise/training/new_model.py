"""A model with fresh weights, for tasks that no pretrained model fits."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from equipoise import storage
from equipoise.errors import ModelError

_SEED = 13


def create_model(kind: str, architecture: dict[str, Any]) -> Path:
    """Folder of a new model of a type of transformers; made once, the same settings give the same weights.

    Args:
        kind: model type, such as `resnet` or `vit`.
        architecture: settings of that type's config.

    Raises:
        ModelError: no such type, or it does not take these settings.
    """
    content = json.dumps([kind, architecture, _SEED], sort_keys=True)
    target = storage.user_cache("new-models") / f"{kind}-{hashlib.sha256(content.encode()).hexdigest()[:12]}"
    if target.is_dir():
        return target
    import torch
    import transformers
    from huggingface_hub.errors import StrictDataclassError
    from safetensors.torch import save_file

    try:
        config = transformers.AutoConfig.for_model(kind)
    except ValueError as error:
        raise ModelError(
            "transformers has no model of that type", where="model.teacher", value=f"new://{kind}"
        ) from error
    unknown = sorted(name for name in architecture if not hasattr(config, name))
    if unknown:
        raise ModelError(
            f"a {kind} has no setting of that name",
            where="model.architecture",
            value=unknown,
            remedy="see the type's config in transformers",
        )
    try:
        config = transformers.AutoConfig.for_model(kind, **architecture)
        with torch.random.fork_rng():
            torch.manual_seed(_SEED)
            model = transformers.AutoModel.from_config(config)
    except (TypeError, ValueError, RuntimeError, StrictDataclassError) as error:
        raise ModelError(
            f"cannot be made: {error}", where="model.architecture", value=architecture
        ) from error

    def fill(folder: Path) -> None:
        config.save_pretrained(folder)
        save_file(
            {name: value.contiguous() for name, value in model.state_dict().items()},
            folder / "model.safetensors",
            metadata={"format": "pt"},
        )

    storage.write_folder(target, fill)
    return target
