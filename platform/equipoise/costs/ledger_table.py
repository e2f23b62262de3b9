"""A ledger as columns: a million lines in seconds, each checked, none dropped unseen.

Objects are parsed by pyarrow some megabytes at a time. Only where that fails, or a line's figures
cannot be, are the objects of that batch read line by line, to name the line and keep the others.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pa_json
from numpy.typing import NDArray

from equipoise import storage
from equipoise.costs.ledger import CLOSED, COST_FUZZ, check_line, parse_line
from equipoise.errors import InputError
from equipoise.runs.folder import RunFolder

_BATCH_BYTES = 2 * 2**20
_MICROSECONDS = pa.timestamp("us", tz="UTC")
_TEXTS = ("kind", "component", "charge_class", "resource", "unit", "resource_type", "resource_id", "writer")
_NUMBERS = ("quantity", "effective_unit_price", "billed_cost_usd", "requested", "used")
_TIMES = ("period_start", "period_end")
_SCHEMA = pa.schema(
    [(name, pa.string()) for name in _TEXTS]
    + [(name, pa.float64()) for name in _NUMBERS]
    + [(name, _MICROSECONDS) for name in _TIMES]
    + [("number", pa.int64())]
)


@dataclass(frozen=True)
class Fault:
    """What is wrong in the ledger itself, and where."""

    where: str
    what: str


@dataclass
class LedgerTable:
    """Lines as columns of equal length.

    `texts[name]` are codes into `values[name]`; times are microseconds since the epoch; a missing
    number is NaN, a missing line number -1.
    """

    texts: dict[str, NDArray[np.int32]]
    values: dict[str, list[str]]
    numbers: dict[str, NDArray[np.float64]]
    start: NDArray[np.int64]
    stop: NDArray[np.int64]
    number: NDArray[np.int64]
    closed: dict[str, int] = field(default_factory=dict)
    """Number of lines by writer, of those that came to their end."""
    faults: list[Fault] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.start)

    def is_text(self, name: str, *wanted: str) -> NDArray[np.bool_]:
        """Which lines have one of these texts in a column."""
        codes = [code for code, value in enumerate(self.values[name]) if value in wanted]
        return np.isin(self.texts[name], codes)

    def text(self, name: str, line: int) -> str:
        """A line's text in a column."""
        code = int(self.texts[name][line])
        return self.values[name][code]


def read_table(run: RunFolder) -> LedgerTable:
    """Every line of every writer that can be read; those that cannot are among the faults.

    Raises:
        StorageError: an object cannot be read at all.
    """
    build = _Builder()
    closed: dict[str, int] = {}
    for name in storage.list_files(run.path("ledger")):
        where = run.path("ledger", name)
        if name.endswith(".jsonl"):
            build.add(where, storage.read_bytes(where))
        elif name.endswith(f"/{CLOSED}"):
            try:
                closed[name.split("/")[0]] = int(storage.read_json(where)["lines"])
            except (InputError, KeyError, TypeError, ValueError):
                build.faults.append(Fault(where, "is damaged: it should hold the number of lines"))
    return build.table(closed)


class _Builder:
    def __init__(self) -> None:
        self.faults: list[Fault] = []
        self._waiting: list[tuple[str, bytes]] = []
        self._bytes = 0
        self._codes: dict[str, dict[str, int]] = {name: {} for name in _TEXTS}
        self._columns: dict[str, list[NDArray[Any]]] = {name: [] for name in _SCHEMA.names}

    def add(self, where: str, content: bytes) -> None:
        if not content.endswith(b"\n"):
            # pyarrow takes a whole last line without its end; but the writer puts one.
            self._parse_singly([(where, content)])
            return
        self._waiting.append((where, content))
        self._bytes += len(content)
        if self._bytes >= _BATCH_BYTES:
            self._parse()

    def table(self, closed: dict[str, int]) -> LedgerTable:
        self._parse()
        types: dict[str, Any] = dict.fromkeys(_TEXTS, np.int32) | dict.fromkeys(_NUMBERS, np.float64)
        whole = {}
        for name in _SCHEMA.names:
            # Column by column: the parts of one are let go before the next is put together.
            parts = self._columns.pop(name)
            whole[name] = np.concatenate(parts) if parts else np.zeros(0, types.get(name, np.int64))
            del parts
        return LedgerTable(
            texts={name: whole[name] for name in _TEXTS},
            values={name: list(codes) for name, codes in self._codes.items()},
            numbers={name: whole[name] for name in _NUMBERS},
            start=whole["period_start"],
            stop=whole["period_end"],
            number=whole["number"],
            closed=closed,
            faults=self.faults,
        )

    def _parse(self) -> None:
        waiting, self._waiting, self._bytes = self._waiting, [], 0
        if not waiting:
            return
        content = b"".join(content for _, content in waiting)
        lines = content.count(b"\n")
        try:
            found = _parse_json(content)
        except pa.ArrowInvalid:
            found = None  # A damaged line: find out which.
        if found is None or len(found) != lines or not _is_sound(found):
            self._parse_singly(waiting)
        else:
            self._take(found)

    def _parse_singly(self, objects: list[tuple[str, bytes]]) -> None:
        """Line by line: the good ones are taken, the others named."""
        good = []
        for where, content in objects:
            for number, text in enumerate(content.removesuffix(b"\n").split(b"\n"), start=1):
                try:
                    line = parse_line(text)
                    check_line(line)
                except InputError as error:
                    self.faults.append(Fault(f"{where}:{number}", f"damaged line: {error}"))
                    continue
                good.append(line.model_dump_json())
        if good:
            self._take(_parse_json("".join(f"{line}\n" for line in good).encode()))

    def _take(self, found: pa.Table) -> None:
        for name in _TEXTS:
            column = pc.fill_null(found[name], "").combine_chunks().dictionary_encode()
            known = self._codes[name]
            translation = np.array(
                [known.setdefault(value, len(known)) for value in column.dictionary.to_pylist()],
                dtype=np.int32,
            )
            indices = column.indices.to_numpy(zero_copy_only=False)
            self._columns[name].append(translation[indices] if len(indices) else indices.astype(np.int32))
        for name in _NUMBERS:
            self._columns[name].append(found[name].to_numpy())
        for name in _TIMES:
            self._columns[name].append(pc.cast(found[name], pa.int64()).to_numpy())
        self._columns["number"].append(pc.fill_null(found["number"], -1).to_numpy())


def _parse_json(content: bytes) -> pa.Table:
    options = pa_json.ParseOptions(explicit_schema=_SCHEMA, unexpected_field_behavior="ignore")
    return pa_json.read_json(
        pa.BufferReader(content), parse_options=options, read_options=pa_json.ReadOptions(use_threads=False)
    )


def _is_sound(found: pa.Table) -> bool:
    """Whether every line of a batch passes what `check_line` checks."""
    required = ("kind", "component", "charge_class", "resource", "unit", *_NUMBERS[:3], *_TIMES)
    if any(found[name].null_count for name in required):
        return False
    kinds = set(pc.unique(found["kind"]).to_pylist())
    classes = set(pc.unique(found["charge_class"]).to_pylist())
    if not (kinds <= {"usage", "node"} and classes <= {"workload", "idle", "overhead"}):
        return False
    quantity, price, billed = (found[name].to_numpy() for name in _NUMBERS[:3])
    start, stop = (pc.cast(found[name], pa.int64()).to_numpy() for name in _TIMES)
    expected = quantity * price
    return bool(
        np.all(np.isfinite(quantity) & (quantity >= 0) & np.isfinite(billed) & (billed >= 0))
        and np.all(stop >= start)
        and np.all(np.abs(billed - expected) <= COST_FUZZ * np.maximum(np.abs(expected), 1e-12))
    )
