"""How wide each layer of a transformer is, as a record beside its weights.

A config of transformers can say one FFN width for all layers, and of some models the number of heads. What
it cannot say stands in `structure.json`: numbers alone, which say how far each layer of the model that the
config describes is narrowed before the weights are read.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

STRUCTURE_FILE = "structure.json"


class Widths(BaseModel):
    """Attention heads and feed-forward neurons of each layer; `structure.json`.

    Where several heads share their keys and values, such a group counts as one head.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    heads: tuple[int, ...] = Field(min_length=1)
    ffn: tuple[int, ...] = Field(min_length=1)
