"""Options that `equipoise evaluate` and `equipoise predict` have in common."""

from __future__ import annotations

from typing import Annotated

import typer

DEFAULT_NODE = "aws/c7i.large"
"""That of `cost.node`, written out: a config would load pydantic before the command is known."""

Model = Annotated[
    str, typer.Argument(metavar="MODEL|BUNDLE|RUN", help="A bundle, a run folder, or RUN/teacher.")
]
TextColumn = Annotated[str, typer.Option(help="Column that holds the text, the words or the image.")]
PromptColumn = Annotated[
    str | None, typer.Option(help="Of a language model, column that holds what the text follows.")
]
Node = Annotated[
    str, typer.Option(metavar="NODE", help="Node type of the price book that this is billed as.")
]
