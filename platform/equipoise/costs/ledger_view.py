"""The ledger summed up for a reader: dollars and quantities by any of its columns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from equipoise.costs.ledger_table import LedgerTable

GROUPINGS = ("component", "charge_class", "resource", "resource_type", "resource_id", "writer")


@dataclass(frozen=True)
class LedgerGroup:
    """Usage lines of one value of a column and of one unit; usage is part of the nodes' own periods."""

    name: str
    unit: str
    lines: int
    quantity: float
    used: float | None
    """Measured use, of the lines that have it; None where none has."""
    billed_usd: float


def group_lines(table: LedgerTable, by: str) -> list[LedgerGroup]:
    """Sums by a column of `GROUPINGS`, the dearest first."""
    usage = np.flatnonzero(table.is_text("kind", "usage"))
    units = len(table.values["unit"])
    keys, place = np.unique(
        table.texts[by][usage].astype(np.int64) * max(units, 1) + table.texts["unit"][usage],
        return_inverse=True,
    )

    def total(column: str) -> list[float]:
        values = table.numbers[column][usage]
        sums = np.bincount(place, weights=np.nan_to_num(values), minlength=len(keys))
        return [float(value) for value in sums]

    measured = np.bincount(place, weights=~np.isnan(table.numbers["used"][usage]), minlength=len(keys))
    sums = zip(
        keys.tolist(),
        np.bincount(place, minlength=len(keys)).tolist(),
        measured.tolist(),
        total("quantity"),
        total("used"),
        total("billed_cost_usd"),
        strict=True,
    )
    groups = [
        LedgerGroup(
            name=table.values[by][key // units],
            unit=table.values["unit"][key % units],
            lines=lines,
            quantity=quantity,
            used=used if with_use else None,
            billed_usd=usd,
        )
        for key, lines, with_use, quantity, used, usd in sums
    ]
    return sorted(groups, key=lambda group: (-group.billed_usd, group.name))
