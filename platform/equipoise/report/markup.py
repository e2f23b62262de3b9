"""Numbers as people read them, and tables of HTML whose every text is escaped."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from typing import Any

from equipoise.runs import Figure


def significant(value: float, digits: int = 3) -> str:
    """A number at so many significant digits, never in exponent form."""
    if not math.isfinite(value):
        return str(value)
    if value == 0:
        return "0"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return f"{value:,.{decimals}f}"


def compact(value: float) -> str:
    """A number at up to four significant digits, without trailing zeros."""
    text = significant(value, 4)
    return text.rstrip("0").rstrip(".") if "." in text else text


def dollars(value: float) -> str:
    """US dollars: to the cent from $1 upwards, at three significant digits below."""
    return f"${value:,.2f}" if abs(value) >= 1 else f"${significant(value)}"


def per_1k(value: float, rps: float) -> str:
    """Dollars per 1,000 requests, beside the arrival rate without which they mean nothing."""
    return f"{dollars(value)} at {rps:g} rps"


def interval(figure: Figure | None) -> str:
    """A figure with its 95% interval, to the digits that the interval warrants; a dash for no figure."""
    if figure is None:
        return "–"
    width = figure.high - figure.low
    if not (width > 0 and math.isfinite(width)):
        return significant(figure.value)
    decimals = max(0, 1 - math.floor(math.log10(width)))
    value, low, high = (f"{number:,.{decimals}f}" for number in (figure.value, figure.low, figure.high))
    return f"{value} [{low}, {high}]"


def signed(figure: Figure | None) -> str:
    """A difference with its sign and its 95% interval; a dash for no figure."""
    if figure is None:
        return "–"
    return f"{figure.value:+.4f} [{figure.low:+.4f}, {figure.high:+.4f}]"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], caption: str, *, numbers: bool = True) -> str:
    """A table; the first cell of a row heads it.

    Args:
        numbers: whether every column but the first is set flush right.
    """
    cells = "".join(f'<th scope="col">{escape(text)}</th>' for text in head)
    body = "\n".join(
        f'<tr><th scope="row">{escape(first)}</th>'
        + "".join(f"<td>{escape(text)}</td>" for text in rest)
        + "</tr>"
        for first, *rest in rows
    )
    style = ' class="numbers"' if numbers else ""
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(caption)}"><table{style}>'
        f"<caption>{escape(caption)}</caption>"
        f"<thead><tr>{cells}</tr></thead><tbody>\n{body}\n</tbody></table></div>"
    )


def record_table(record: Any, caption: str) -> str:
    """A JSON record as rows of dotted key and value."""
    return table(("key", "value"), flatten(record), caption, numbers=False)


def flatten(record: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Dotted keys and values as text; a list of plain values stays one row."""
    if isinstance(record, dict) and record:
        for key, value in record.items():
            yield from flatten(value, f"{path}.{key}" if path else str(key))
    elif isinstance(record, list) and any(isinstance(value, dict | list) for value in record):
        for index, value in enumerate(record):
            yield from flatten(value, f"{path}[{index}]")
    else:
        yield path or "value", _plain(record)


def _plain(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "–"}[value]
    if isinstance(value, float):
        return compact(value)
    if isinstance(value, list | dict):
        return ", ".join(_plain(part) for part in value) or "none"
    return str(value)
