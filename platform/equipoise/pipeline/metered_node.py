"""The node that a process runs on, metered from start to stop, and settled when it is gone."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import sys
import threading
from collections.abc import Iterator

from equipoise import hardware, storage
from equipoise.config import RunConfig
from equipoise.costs.ledger_lines import node_line
from equipoise.costs.ledger_settle import settle
from equipoise.costs.ledger_writer import LedgerWriter
from equipoise.errors import EquipoiseError, RetryableError
from equipoise.pipeline.stored import stored_lines
from equipoise.runs import RunFolder

HEARTBEAT_S = 20.0
_FIRST_S = 0.5
PIPELINE = "pipeline"
"""Component of a run's own nodes; one at a time, under the lock of the run's folder."""

_log = logging.getLogger(__name__)


@contextlib.contextmanager
def metered_node(
    run: RunFolder, config: RunConfig, node: str, component: str, usd_per_hour: float | None = None
) -> Iterator[None]:
    """Put a node line at once and every 20 seconds, so that a killed process loses no more than that.

    At the end, what the run folder stores and what nobody used of the node become lines too.

    Args:
        run: whose ledger.
        node: node type of the price book.
        component: whom the node is up for: `pipeline`, or `serving`.
        usd_per_hour: what is paid for it, such as its spot price; None is its list price.

    Raises:
        StorageError: the ledger cannot be written.
    """
    if component == PIPELINE and storage.list_folders(run.path("ledger")):
        # What a killed try was at is billed now, so that a choice made in this one is charged with it.
        with LedgerWriter(run, config, "settle", node=node) as settling:
            settle(run, settling, exclusive=PIPELINE)
    writer = LedgerWriter(run, config, "node", node=node, usd_per_hour=usd_per_hour)
    clock = _NodeClock(writer, component)
    clock.start()
    try:
        yield
    except BaseException:
        # The block's own fault is the one to tell; what cannot be put now is settled by the next try.
        try:
            _close(clock, run, config, node)
        except EquipoiseError as fault:
            _log.warning("the ledger could not be put: %s", fault)
        raise
    _close(clock, run, config, node)


def _close(clock: _NodeClock, run: RunFolder, config: RunConfig, node: str) -> None:
    clock.stop()
    with LedgerWriter(run, config, "settle", node=node) as writer:
        for line in stored_lines(run, writer):
            writer.add(line)
        # A run's folder is locked: whatever else was up for its pipeline was killed.
        settle(run, writer, ended=clock.names, exclusive=PIPELINE if clock.component == PIPELINE else None)


class _NodeClock:
    def __init__(self, writer: LedgerWriter, component: str) -> None:
        self.names: set[str] = set()
        """Of every node that was up."""
        self.component = component
        self._writer = writer
        self._since = writer.clock()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="node-clock", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Put the last line.

        Raises:
            StorageError: it, or one before it, cannot be put.
        """
        self._stopping.set()
        self._thread.join(timeout=30)
        self._add()
        self._writer.close()

    def _beat(self) -> None:
        # The first line early: of a node without any line, nobody could tell that it was up.
        wait_s = _FIRST_S
        while not self._stopping.wait(wait_s):
            wait_s = HEARTBEAT_S
            self._add()
            try:
                self._writer.flush()
            except RetryableError as error:
                _log.warning("%s; the lines wait for the next flush", error)

    def _add(self) -> None:
        now = self._writer.clock()
        vcpus = self._writer.book.node(self._writer.node).vcpus
        for suffix, cores in _machines().items():
            name = f"{self._writer.name}{suffix}"
            self.names.add(name)
            self._writer.add(
                node_line(
                    run_id=self._writer.run_id,
                    component=self.component,
                    node=self._writer.node,
                    book=self._writer.book,
                    start=self._since,
                    stop=now,
                    # A machine with more cores than the node type it is priced as counts as several.
                    count=max(1, math.ceil(cores / vcpus)),
                    resource_id=name,
                    usd_per_hour=self._writer.usd_per_hour,
                )
            )
        self._since = now


def _machines() -> dict[str, float]:
    """Cores by machine: those of a cluster that was joined, or this one alone."""
    ray = sys.modules.get("ray")
    # While another thread imports it, the module is there and its functions are not yet.
    is_joined = getattr(ray, "is_initialized", None)
    if ray is None or is_joined is None or not os.environ.get("RAY_ADDRESS") or not is_joined():
        return {"": float(len(hardware.usable_cores()))}
    alive = [node for node in ray.nodes() if node["Alive"]]
    return {f"-{node['NodeID'][:8]}": float(node["Resources"].get("CPU", 0.0)) for node in alive}
