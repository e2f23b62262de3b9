"""A piece of work outside a run that is metered all the same, into a folder of its own."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from equipoise.config import RunConfig
from equipoise.config.cost import CostConfig
from equipoise.config.data import DataConfig
from equipoise.config.model import ModelConfig
from equipoise.costs.ledger_writer import LedgerWriter
from equipoise.pipeline.metered_node import metered_node
from equipoise.runs import RunFolder


@contextlib.contextmanager
def open_job(out: RunFolder, name: str, *, data: str, model: str) -> Iterator[LedgerWriter]:
    """Meter the node and hand out a ledger writer; both under `out/ledger/`."""
    config = RunConfig(
        name=name,
        data=DataConfig(train=data, test=data),
        model=ModelConfig(teacher=model),
        cost=CostConfig(),
    )
    with metered_node(out, config, config.cost.node, name), LedgerWriter(out, config, name) as ledger:
        yield ledger
