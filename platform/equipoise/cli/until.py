"""The option that ends a run after a part of it."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer


class Part(StrEnum):
    """What a run may end after; as in `equipoise.pipeline.parts`, which loads too much for a command line."""

    finetune = "finetune"
    distill = "distill"
    search = "search"


Until = Annotated[
    Part | None,
    typer.Option(
        help="End after the teacher, one student, or the search; default: the whole run. "
        "The same without it goes on from there.",
    ),
]
