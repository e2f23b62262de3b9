"""A piece of work outside a run that is metered all the same, into a folder of its own."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from equipoise.config import RunConfig
from equipoise.config.cost import CostConfig
from equipoise.config.data import DataConfig
from equipoise.config.model import ModelConfig
from equipoise.costs.ledger_writer import LedgerWriter
from equipoise.costs.price_book import load_prices
from equipoise.pipeline.metered_node import metered_node
from equipoise.runs import RunFolder

DEFAULT_NODE = CostConfig().node


def check_node(node: str) -> None:
    """See that a node has a price, before anything else is done.

    Raises:
        ConfigError: the price book has none of that name; says which is near.
    """
    load_prices(CostConfig()).node(node, "--node")


@contextlib.contextmanager
def open_job(
    out: RunFolder, name: str, *, data: str, model: str, node: str = DEFAULT_NODE
) -> Iterator[LedgerWriter]:
    """Meter the node and hand out a ledger writer; both under `out/ledger/`.

    Args:
        node: node type of the price book that this machine is billed as.

    Raises:
        ConfigError: the price book has no such node.
    """
    config = RunConfig(
        name=name,
        data=DataConfig(train=data, test=data),
        model=ModelConfig(teacher=model),
        cost=CostConfig(node=node),
    )
    with metered_node(out, config, config.cost.node, name), LedgerWriter(out, config, name) as ledger:
        yield ledger
