"""The pretrained model that the teacher is fine-tuned from."""

from __future__ import annotations

from pydantic import Field

from equipoise.config.section import Section


class ModelConfig(Section):
    """A folder of a transformers model, `hf://ORG/NAME`, or `sample://NAME`."""

    teacher: str = Field(description="Pretrained model the teacher starts from.")
    max_length: int = Field(128, ge=8, le=8192, description="Longest input in tokens; longer texts are cut.")
