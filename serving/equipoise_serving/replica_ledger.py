"""A replica's own lines in a run's ledger: what it reserved, used and answered, every 20 seconds."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from equipoise.config.load import validate_config
from equipoise.config.run import RunConfig
from equipoise.costs.ledger_writer import LedgerWriter
from equipoise.costs.price_book import load_prices, node_usd_per_hour
from equipoise.errors import EquipoiseError, RunFolderError
from equipoise.runs import RunFolder

HEARTBEAT_S = 20.0

_log = logging.getLogger("ray.serve")


@dataclass(frozen=True)
class ReplicaLedger:
    """Where replicas meter themselves, and at whose prices."""

    run_location: str
    config: RunConfig
    node: str
    """Node type of the price book that the replicas run on."""
    usd_per_hour: float | None = None
    """What is paid for such a node; None is its list price."""

    @property
    def usd_per_core_second(self) -> float:
        """What is paid for a core of such a node."""
        entry = load_prices(self.config.cost).node(self.node)
        paid = entry.usd_per_hour if self.usd_per_hour is None else self.usd_per_hour
        return paid / entry.vcpus / 3600


def open_replica_ledger(run: str) -> ReplicaLedger:
    """The ledger of a run folder, at the prices of the run's own config.

    Args:
        run: a path or URI.

    Raises:
        RunFolderError: there is no run.
        ConfigError: its config or its price book cannot be used here.
        StorageError: the store does not answer.
    """
    folder = RunFolder(run)
    if not folder.has("config.json"):
        raise RunFolderError("is no run folder", where=folder.location, remedy="name a run's folder")
    config = validate_config(RunConfig, folder.read("config.json"), where=folder.path("config.json"))
    paid = node_usd_per_hour(load_prices(config.cost), config.cost)
    return ReplicaLedger(folder.location, config, config.cost.node, paid)


class ReplicaClock:
    """Puts a line every 20 seconds and a last one when stopped; a killed replica loses no more than that.

    Args:
        ledger: where to.
        model_name: names the replica's model.
        cores: cores that Ray reserves for it.
        count_answered: requests answered so far.
    """

    def __init__(
        self, ledger: ReplicaLedger, model_name: str, cores: float, count_answered: Callable[[], int]
    ) -> None:
        self._writer = LedgerWriter(
            RunFolder(ledger.run_location),
            ledger.config,
            "replica",
            node=ledger.node,
            usd_per_hour=ledger.usd_per_hour,
        )
        self._model_name = model_name
        self._reserved: dict[str, Any] = {
            "cores": cores,
            "memory_gib": ledger.config.cost.replica_memory_gib,
            "gpus": ledger.config.cost.replica_gpus,
        }
        self._count_answered = count_answered
        self._since, self._cpu_s, self._answered = self._writer.clock(), time.process_time(), 0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="replica-clock", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Put the last line, once."""
        if self._stopping.is_set():
            return
        self._stopping.set()
        self._thread.join(timeout=10)
        self._add()
        try:
            self._writer.close()
        except EquipoiseError as error:
            _log.warning("the last line of the ledger is lost: %s", error)

    def _beat(self) -> None:
        while not self._stopping.wait(HEARTBEAT_S):
            self._add()
            try:
                self._writer.flush()
            except EquipoiseError as error:
                _log.warning("%s; the lines wait for the next flush", error)

    def _add(self) -> None:
        now, cpu_s, answered = self._writer.clock(), time.process_time(), self._count_answered()
        self._writer.add(
            self._writer.usage(
                "serving",
                self._since,
                now,
                **self._reserved,
                used_core_seconds=cpu_s - self._cpu_s,
                detail=self._model_name,
                resource_type="replica",
                resource_id=self._writer.name,
                requests=answered - self._answered,
            )
        )
        self._since, self._cpu_s, self._answered = now, cpu_s, answered
