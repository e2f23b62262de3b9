"""The pretrained model that the teacher is fine-tuned from."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from equipoise.config.section import Section


class ModelConfig(Section):
    """A folder of a transformers model, `hf://ORG/NAME`, `sample://NAME`, or `new://TYPE`."""

    teacher: str = Field(description="Pretrained model the teacher starts from.")
    max_length: int = Field(128, ge=8, le=8192, description="Longest input in tokens; longer texts are cut.")
    image_size: int | None = Field(
        None, ge=8, le=4096, description="Side that images are scaled to, in pixels; default the model's own."
    )
    architecture: dict[str, Any] = Field(
        default_factory=dict,
        description="Of a `new://TYPE` model: settings of that type in transformers, such as hidden_sizes.",
    )
