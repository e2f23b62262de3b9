"""The table of what the run itself cost: dollars on its ledger by component and charge class."""

from __future__ import annotations

from equipoise.costs.ledger import ledger_usd, read_ledger
from equipoise.report.markup import dollars, table
from equipoise.runs import LedgerLine, RunFolder

_CLASSES = ("workload", "overhead", "idle")


def bill_table(run: RunFolder) -> str:
    """Every component, and the sum; empty where nothing is on the ledger.

    Raises:
        InputError: a line is damaged.
    """
    lines = read_ledger(run)
    usd = ledger_usd(lines)
    if not usd["component"]:
        return ""
    rows = [(name, *_cells(lines, name), dollars(total)) for name, total in usd["component"].items()]
    by_class = [dollars(usd["charge_class"].get(name, 0.0)) for name in _CLASSES]
    rows.append(("in all", *by_class, dollars(sum(usd["component"].values()))))
    terms = " and ".join(f"{dollars(total)} of {term}" for term, total in usd["term"].items())
    until = max(line.period_end for line in lines)[:19].replace("T", " ")
    caption = (
        f"{terms}, as the ledger had it by {until} UTC; `equipoise show` and the exporter go on counting "
        "what is kept and served since."
    )
    return table(("component", *_CLASSES, "in all"), rows, caption)


def _cells(lines: list[LedgerLine], component: str) -> list[str]:
    own = ledger_usd(line for line in lines if line.component == component)["charge_class"]
    return [dollars(own.get(name, 0.0)) for name in _CLASSES]
