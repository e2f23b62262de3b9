"""The ledger: metered lines, put as whole objects under `ledger/<writer>/`, and read back.

Object stores cannot append, so a writer buffers its lines and each flush puts one new object. What
a killed writer had flushed stays whole; what it had not is lost.
"""

from __future__ import annotations

import contextlib
import math
import re
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType

from pydantic import ValidationError

from equipoise import storage
from equipoise.config.run import RunConfig
from equipoise.costs.ledger_lines import ChargeClass, line_period, usage_line
from equipoise.costs.price_book import load_prices
from equipoise.errors import EquipoiseError, InputError, RunFolderError
from equipoise.runs.folder import RunFolder
from equipoise.runs.records import LedgerLine

_WRITER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_OBJECT = re.compile(r"(\d+)\.jsonl")


class LedgerWriter:
    """Buffers lines of one process and puts them; a context manager that flushes at its end.

    Args:
        run: whose `ledger/` is written to.
        config: names the run and its prices; blocks are metered at `cost.training_node`, or
            `cost.node` where that is unset.
        writer: this writer's own folder name; no two writers at work may share one.
        clock: seconds since the epoch.

    Raises:
        ConfigError: the price book cannot be used, or has no such node.
        EquipoiseError: the writer's name is no plain file name.
    """

    def __init__(
        self, run: RunFolder, config: RunConfig, writer: str, *, clock: Callable[[], float] = time.time
    ) -> None:
        if not _WRITER.fullmatch(writer):
            raise EquipoiseError("not usable as a ledger writer's name", value=writer)
        self.run_id = config.name
        self.book = load_prices(config.cost)
        self.node = config.cost.training_node or config.cost.node
        self.book.node(self.node)
        self._run, self._writer, self._clock = run, writer, clock
        self._lines: list[LedgerLine] = []
        self._lock = threading.Lock()
        self._next = self._first_free()
        self._trying = False

    def add(self, line: LedgerLine) -> None:
        """Buffer a line."""
        with self._lock:
            self._lines.append(line)

    def flush(self) -> None:
        """Put the buffered lines as one object; nothing where there are none.

        Raises:
            StorageError: the put failed; the lines stay buffered, and the next flush puts them.
            RunFolderError: another writer uses the same folder.
        """
        with self._lock:
            if not self._lines:
                return
            parts = ("ledger", self._writer, f"{self._next:06d}.jsonl")
            if not self._trying and self._run.has(*parts):
                raise RunFolderError(
                    "another ledger writer uses this folder", where=self._run.path(*parts[:-1])
                )
            # A put that failed may still have landed; the retry then overwrites its own object.
            self._trying = True
            content = "".join(line.model_dump_json() + "\n" for line in self._lines)
            storage.put_bytes(self._run.path(*parts), content.encode())
            self._lines, self._next, self._trying = [], self._next + 1, False

    @contextlib.contextmanager
    def meter(
        self, component: str, *, cores: float, charge_class: ChargeClass = "workload", detail: str = ""
    ) -> Iterator[None]:
        """Bill the block's wall time on `cores` cores; as overhead where the block raises.

        Args:
            component: training, search, evaluation, serving or pipeline.
            cores: cores that the block holds.
            detail: what ran, for people.
        """
        start = self._clock()
        billed: ChargeClass = "overhead"
        try:
            yield
            billed = charge_class
        finally:
            self.add(
                usage_line(
                    run_id=self.run_id,
                    component=component,
                    charge_class=billed,
                    node=self.node,
                    book=self.book,
                    cores=cores,
                    start=start,
                    stop=self._clock(),
                    detail=detail,
                )
            )

    def __enter__(self) -> LedgerWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.flush()

    def _first_free(self) -> int:
        names = storage.list_files(self._run.path("ledger", self._writer))
        taken = [int(match[1]) for match in map(_OBJECT.fullmatch, names) if match]
        return max(taken, default=-1) + 1


def read_ledger(run: RunFolder) -> list[LedgerLine]:
    """Every line of every writer, in order of writer and object; empty where there is no ledger.

    Raises:
        InputError: a line is damaged; names its object and its number.
    """
    return [
        line
        for name in storage.list_files(run.path("ledger"))
        if name.endswith(".jsonl")
        for line in _read_lines(run.path("ledger", name))
    ]


def ledger_usd(lines: Iterable[LedgerLine]) -> dict[str, dict[str, float]]:
    """Billed dollars of the usage lines, under `component` and under `charge_class`.

    The two groupings have the same sum; node periods are left out, for usage is part of them.
    """
    groups: dict[str, dict[str, list[float]]] = {
        "component": defaultdict(list),
        "charge_class": defaultdict(list),
    }
    for line in lines:
        if line.kind == "usage":
            groups["component"][line.component].append(line.billed_cost_usd)
            groups["charge_class"][line.charge_class].append(line.billed_cost_usd)
    return {
        grouping: {key: math.fsum(billed) for key, billed in sorted(found.items())}
        for grouping, found in groups.items()
    }


def _read_lines(location: str) -> Iterator[LedgerLine]:
    content = storage.read_bytes(location).removesuffix(b"\n")
    for number, text in enumerate(content.split(b"\n"), start=1):
        try:
            line = LedgerLine.model_validate_json(text)
            line_period(line)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            spot = ".".join(map(str, first["loc"]))
            reason = f"{spot}: {first['msg']}" if spot else first["msg"]
            raise InputError(f"damaged ledger line: {reason}", where=f"{location}:{number}") from error
        except InputError as error:
            raise InputError(f"damaged ledger line: {error}", where=f"{location}:{number}") from error
        yield line
