"""Image classification: one label an image (ResNet and ViT families)."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from equipoise.config.model import ModelConfig
from equipoise.data import Layout
from equipoise.data.image_folder import decode_image
from equipoise.errors import BundleError, DataError
from equipoise.tasks.one_label import OneLabel
from equipoise.tasks.task import Arrays

_DEFAULT_SIDE = 224
_PREPROCESSOR_FILE = "preprocessor_config.json"


class ImageClassification(OneLabel):
    """Scales, crops nothing, normalizes; with numpy and Pillow alone.

    Args:
        labels: label names in the order of the logits.
        side: height and width that images are scaled to, in pixels.
        channels: 1 or 3; grey images are repeated, coloured ones made grey, to fit.
        mean: of each channel, on the scale 0 to 1.
        deviation: of each channel, likewise.
        temperature: divides the logits before the softmax; fitted on validation.
    """

    name: ClassVar[str] = "image_classification"
    layout: ClassVar[Layout] = "image"
    model_class: ClassVar[str] = "AutoModelForImageClassification"
    files: ClassVar[tuple[str, ...]] = ("config.json", "model.safetensors")
    ragged: ClassVar[bool] = False
    inputs: tuple[str, ...] = ("pixel_values",)

    def __init__(
        self,
        labels: Sequence[str],
        side: int,
        channels: int,
        mean: Sequence[float],
        deviation: Sequence[float],
        temperature: float = 1.0,
    ) -> None:
        self.labels = tuple(labels)
        self.side = side
        self.channels = channels
        self.mean = tuple(mean)
        self.deviation = tuple(deviation)
        self.temperature = temperature

    @classmethod
    def create(cls, folder: Path, labels: Sequence[str], settings: ModelConfig) -> ImageClassification:
        """From a transformers folder: config.json, and preprocessor_config.json where it has one."""
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        file = folder / _PREPROCESSOR_FILE
        before = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        size = before.get("size", {})
        named = size if isinstance(size, int) else size.get("height") or size.get("shortest_edge")
        side = settings.image_size or config.get("image_size") or named or _DEFAULT_SIDE
        channels = int(config.get("num_channels", 3))
        return cls(
            labels,
            int(side),
            channels,
            before.get("image_mean") or [0.5] * channels,
            before.get("image_std") or [0.5] * channels,
        )

    @classmethod
    def load(cls, folder: Path, description: dict[str, Any]) -> ImageClassification:
        try:
            return cls(
                description["labels"],
                description["side"],
                description["channels"],
                description["mean"],
                description["deviation"],
                description["temperature"],
            )
        except KeyError as error:
            raise BundleError(f"task entry lacks {error}", where=str(folder)) from error

    def describe(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "labels": list(self.labels),
            "side": self.side,
            "channels": self.channels,
            "mean": list(self.mean),
            "deviation": list(self.deviation),
            "temperature": self.temperature,
        }

    def save(self, folder: Path) -> None:
        """The preprocessor in the form that transformers reads; `load` needs the description alone."""
        content = {
            "do_resize": True,
            "size": {"height": self.side, "width": self.side},
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            "image_mean": list(self.mean),
            "image_std": list(self.deviation),
        }
        (folder / _PREPROCESSOR_FILE).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")

    def examples(self) -> list[NDArray[np.uint8]]:
        rng = np.random.default_rng(0)
        sides = (self.side, max(1, self.side // 2))
        return [rng.integers(0, 256, (side, side, 3), dtype=np.uint8) for side in sides]

    def from_text(self, text: str) -> NDArray[np.uint8]:
        """An image file in base64."""
        try:
            content = base64.b64decode(text, validate=True)
        except ValueError as error:
            raise DataError("is not base64", remedy="send an image file in base64") from error
        return decode_image(content, "image", max_side=max(512, self.side))

    def to_text(self, value: NDArray[np.uint8]) -> str:
        """A PNG in base64."""
        from PIL import Image

        content = io.BytesIO()
        Image.fromarray(value).save(content, "PNG")
        return base64.b64encode(content.getvalue()).decode("ascii")

    def encode(self, inputs: Sequence[NDArray[np.uint8]]) -> Arrays:
        """Images of (height, width) or (height, width, 3) bytes to float32 (batch, channels, side, side)."""
        scaled = np.stack([self._scale(image) for image in inputs])
        mean = np.array(self.mean, dtype=np.float32)
        deviation = np.array(self.deviation, dtype=np.float32)
        pixels = (scaled.astype(np.float32) / 255 - mean) / deviation
        return {"pixel_values": np.ascontiguousarray(pixels.transpose(0, 3, 1, 2), dtype=np.float32)}

    def lengths(self, inputs: Sequence[NDArray[np.uint8]]) -> NDArray[np.int64]:
        """1 for each image: all are scaled to one size."""
        return np.ones(len(inputs), dtype=np.int64)

    def _scale(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """An image as bytes of (side, side, channels)."""
        from PIL import Image

        grey = image.ndim == 2
        if image.shape[:2] != (self.side, self.side) or grey != (self.channels == 1):
            picture = Image.fromarray(image)
            if picture.size != (self.side, self.side):
                picture = picture.resize((self.side, self.side), Image.Resampling.BILINEAR)
            image = np.asarray(picture.convert("L" if self.channels == 1 else "RGB"), dtype=np.uint8)
        return image[:, :, None] if image.ndim == 2 else image
