"""Metering: what a process used, buffered as lines and put as whole objects under `ledger/<writer>/`.

Object stores cannot append, so a writer buffers its lines and each flush puts one new object. What
a killed writer had flushed stays whole; of the blocks that it was in, the starts are on record.
"""

from __future__ import annotations

import contextlib
import logging
import re
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from equipoise import storage
from equipoise.config.run import RunConfig
from equipoise.costs import ledger_clock
from equipoise.costs.ledger import CLOSED, OPEN
from equipoise.costs.ledger_lines import ChargeClass, ResourceType, usage_line
from equipoise.costs.price_book import load_prices
from equipoise.errors import EquipoiseError, RetryableError
from equipoise.runs.folder import RunFolder
from equipoise.runs.records import LedgerLine

_WRITER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_RATE_S = 1.0
"""Length of the line that stands for a block's start; its quantity is then a rate, a second's worth."""
_log = logging.getLogger(__name__)


@dataclass
class Block:
    """What a metered block learns about itself while it runs."""

    used_core_seconds: float | None = None
    """CPU time measured in whatever ran, other processes included."""
    worker_cpu_s: list[float] | None = None
    """CPU time of each of equal workers that shared the block; a line is written for each."""
    parts: list[LedgerLine] = field(default_factory=list)
    """Lines that take the place of the block's own: one a task, for instance."""


class LedgerWriter:
    """Meters blocks of one process, buffers lines and puts them; a context manager that closes itself.

    Every writer has a folder of its own, `ledger/<writer>-<8 hex digits>/`, so that two of one name
    never meet. In it, each flush is one object. A block's start is put too (`open/<number>.json`),
    so that the work of a killed process can still be billed: see `equipoise.costs.ledger_settle`.
    `closed.json` holds the number of lines of a writer that came to its end.

    Args:
        run: whose `ledger/` is written to.
        config: names the run and its prices; blocks are metered at `node`.
        writer: what writes, such as `driver`; a plain file name.
        node: node type that the blocks run on; default `cost.training_node`, or `cost.node` where that
            is unset.
        usd_per_hour: what is paid for the node; None is its list price.
        clock: seconds since the epoch.

    Raises:
        ConfigError: the price book cannot be used, or has no such node.
        EquipoiseError: the writer's name is no plain file name.
    """

    def __init__(
        self,
        run: RunFolder,
        config: RunConfig,
        writer: str,
        *,
        node: str | None = None,
        usd_per_hour: float | None = None,
        clock: Callable[[], float] = ledger_clock.now,
    ) -> None:
        if not _WRITER.fullmatch(writer):
            raise EquipoiseError("not usable as a ledger writer's name", value=writer)
        self.run_id = config.name
        self.book = load_prices(config.cost)
        self.node = node or config.cost.training_node or config.cost.node
        self.book.node(self.node)
        self.usd_per_hour = usd_per_hour
        self.name = f"{writer}-{uuid.uuid4().hex[:8]}"
        self.clock = clock
        self._run = run
        self._lines: list[LedgerLine] = []
        self._lock = threading.Lock()
        self._objects = self._numbers = 0

    def usage(
        self,
        component: str,
        start: float,
        stop: float,
        *,
        cores: float,
        charge_class: ChargeClass = "workload",
        **options: Any,
    ) -> LedgerLine:
        """A usage line on this writer's node, not yet added; `options` are those of `usage_line`."""
        return usage_line(
            run_id=self.run_id,
            component=component,
            charge_class=charge_class,
            node=self.node,
            book=self.book,
            cores=cores,
            start=start,
            stop=stop,
            usd_per_hour=self.usd_per_hour,
            **options,
        )

    def add(self, line: LedgerLine) -> None:
        """Buffer a line under this writer's next number; one that has a number keeps it."""
        with self._lock:
            self._lines.append(line if line.number is not None else self._numbered(line))

    def flush(self) -> None:
        """Put the buffered lines as one object; nothing where there are none.

        Raises:
            StorageError: the put failed; the lines stay buffered, and the next flush puts them.
        """
        with self._lock:
            if not self._lines:
                return
            # A put that failed may still have landed; the retry then overwrites its own object.
            content = "".join(line.model_dump_json() + "\n" for line in self._lines)
            storage.put_bytes(self._path(f"{self._objects:06d}.jsonl"), content.encode())
            self._lines, self._objects = [], self._objects + 1

    def close(self) -> None:
        """Flush, and put how many lines there are.

        Raises:
            StorageError: a put failed.
        """
        self.flush()
        storage.put_json(self._path(CLOSED), {"lines": self._numbers})

    @contextlib.contextmanager
    def meter(
        self,
        component: str,
        *,
        cores: float,
        gpus: float = 0.0,
        charge_class: ChargeClass = "workload",
        detail: str = "",
        resource_type: ResourceType = "task",
        resource_id: str = "",
    ) -> Iterator[Block]:
        """Bill the block's time at max(request, usage); as overhead where the block raises.

        The lines are put when the block ends. Where that fails, they wait for the next flush.

        Args:
            component: training, search, evaluation, serving or pipeline.
            cores: cores that the block reserves; `gpus` likewise.
            detail: what ran, for people.
            resource_type: what ran; `resource_id` names it.

        Raises:
            StorageError: the block's start could not be put; nothing of it has run.
        """
        start = self.clock()
        named: dict[str, Any] = {"detail": detail, "resource_type": resource_type, "resource_id": resource_id}
        reserved: dict[str, Any] = {"cores": cores, "gpus": gpus}
        rate = self.usage(component, start, start + _RATE_S, charge_class="overhead", **reserved, **named)
        number = self._open(rate)
        block, ended = Block(), False
        try:
            yield block
            ended = True
        finally:
            billed: ChargeClass = charge_class if ended else "overhead"
            stop = self.clock()
            shares: Sequence[float | None] = block.worker_cpu_s or [block.used_core_seconds]
            own = [
                self.usage(
                    component,
                    start,
                    stop,
                    charge_class=billed,
                    **{name: amount / len(shares) for name, amount in reserved.items()},
                    used_core_seconds=used,
                    **{**named, "resource_id": f"{resource_id}{place}" if len(shares) > 1 else resource_id},
                )
                for place, used in enumerate(shares)
            ]
            first, *others = (block.parts if ended else []) or own
            self.add(first.model_copy(update={"writer": self.name, "number": number}))
            for other in others:
                self.add(other)
            self._try_flush()

    def __enter__(self) -> LedgerWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
            return
        try:
            self.close()
        except EquipoiseError as fault:
            # The block's own fault is the one to tell; the open blocks are billed by the next try.
            _log.warning("the ledger could not be put: %s", fault)

    def _open(self, rate: LedgerLine) -> int:
        """Put a block's start; its number, which counts only once that stands."""
        with self._lock:
            number = self._numbers
            opened = self._numbered(rate)
            try:
                storage.put_bytes(self._path(OPEN, f"{number}.json"), opened.model_dump_json().encode())
            except BaseException:
                self._numbers = number
                raise
            return number

    def _try_flush(self) -> None:
        try:
            self.flush()
        except RetryableError as error:
            _log.warning("%s; the lines wait for the next flush", error)

    def _numbered(self, line: LedgerLine) -> LedgerLine:
        number = self._numbers
        self._numbers += 1
        return line.model_copy(update={"writer": self.name, "number": number})

    def _path(self, *parts: str) -> str:
        return self._run.path("ledger", self.name, *parts)
