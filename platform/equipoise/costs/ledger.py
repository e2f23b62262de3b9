"""The ledger read back: metered lines, put as whole objects under `ledger/<writer>/`."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator

from pydantic import ValidationError

from equipoise import storage
from equipoise.costs.ledger_lines import line_period
from equipoise.errors import InputError
from equipoise.runs.folder import RunFolder
from equipoise.runs.records import LedgerLine

CLOSED = "closed.json"
"""Beside a writer's lines: how many they are, once it came to its end."""
OPEN = "open"
"""Folder beside a writer's lines: the starts of its blocks."""
COST_FUZZ = 1e-6
"""Relative difference of a cost from quantity times price that is taken for a rounding error."""


def read_ledger(run: RunFolder) -> list[LedgerLine]:
    """Every line of every writer, in order of writer and object; empty where there is no ledger.

    Raises:
        InputError: a line is damaged; names its object and its number.
    """
    return list(iterate_ledger(run))


def iterate_ledger(run: RunFolder) -> Iterator[LedgerLine]:
    """The same, one object in memory at a time."""
    for name in storage.list_files(run.path("ledger")):
        if name.endswith(".jsonl"):
            yield from _read_lines(run.path("ledger", name))


def line_term(line: LedgerLine) -> str:
    """Which of the cost model's terms a usage line is part of: `compute` or `storage`."""
    return "storage" if line.unit == "GB-months" else "compute"


def ledger_usd(lines: Iterable[LedgerLine]) -> dict[str, dict[str, float]]:
    """Billed dollars of the usage lines, under `component`, `charge_class` and `term`.

    The groupings have the same sum; node periods are left out, for usage is part of them.
    """
    groups: dict[str, dict[str, list[float]]] = {
        "component": defaultdict(list),
        "charge_class": defaultdict(list),
        "term": defaultdict(list),
    }
    for line in lines:
        if line.kind == "usage":
            groups["component"][line.component].append(line.billed_cost_usd)
            groups["charge_class"][line.charge_class].append(line.billed_cost_usd)
            groups["term"][line_term(line)].append(line.billed_cost_usd)
    return {
        grouping: {key: math.fsum(billed) for key, billed in sorted(found.items())}
        for grouping, found in groups.items()
    }


def parse_line(text: bytes) -> LedgerLine:
    """One line as it was put.

    Raises:
        InputError: it is not a ledger line; says which field.
    """
    try:
        return LedgerLine.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        spot = ".".join(map(str, first["loc"]))
        raise InputError(f"{spot}: {first['msg']}" if spot else first["msg"]) from error


def check_line(line: LedgerLine) -> None:
    """Refuse a line whose figures cannot be.

    Raises:
        InputError: its times, quantity or cost are not possible, or the cost is not quantity times price.
    """
    line_period(line)
    billed, expected = line.billed_cost_usd, line.quantity * line.effective_unit_price
    if not (math.isfinite(billed) and billed >= 0):
        raise InputError("ledger cost is not a finite number of at least 0", value=billed)
    if not abs(billed - expected) <= COST_FUZZ * max(abs(expected), 1e-12):
        raise InputError(f"ledger cost is not quantity times price, {expected:.9g}", value=billed)


def _read_lines(location: str) -> Iterator[LedgerLine]:
    content = storage.read_bytes(location).removesuffix(b"\n")
    for number, text in enumerate(content.split(b"\n"), start=1):
        try:
            line = parse_line(text)
            check_line(line)
        except InputError as error:
            raise InputError(f"damaged ledger line: {error}", where=f"{location}:{number}") from error
        yield line
