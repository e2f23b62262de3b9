from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from equipoise.report.markup import (
    compact,
    dollars,
    flatten,
    interval,
    per_1k,
    record_table,
    significant,
    table,
)
from equipoise.runs import Figure


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (1234.5, "1,234"), (0.000123456, "0.000123"), (-0.5, "-0.500"), (float("inf"), "inf")],
)
def test_significant_digits(value: float, text: str) -> None:
    assert significant(value) == text


@given(value=st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_never_take_an_exponent(value: float) -> None:
    assert "e" not in significant(value)
    assert "e" not in compact(value)


@given(value=st.floats(1e-6, 1e9))
def test_significant_keeps_the_value(value: float) -> None:
    assert float(significant(value, 4).replace(",", "")) == pytest.approx(value, rel=1e-3, abs=1e-12)


@pytest.mark.parametrize(("value", "text"), [(0.01, "0.01"), (4936.0, "4,936"), (100.0, "100"), (0.5, "0.5")])
def test_compact_drops_trailing_zeros(value: float, text: str) -> None:
    assert compact(value) == text


def test_dollars_are_cents_above_one() -> None:
    assert dollars(1234.567) == "$1,234.57"
    assert dollars(0.000124) == "$0.000124"


def test_a_price_per_request_names_its_arrival_rate() -> None:
    assert per_1k(0.00025, 100) == "$0.000250 at 100 rps"


@pytest.mark.parametrize(
    ("value", "low", "high", "text"),
    [
        (0.94231, 0.9341, 0.9502, "0.942 [0.934, 0.950]"),
        (26.0, 25.8, 26.2, "26.00 [25.80, 26.20]"),
        (4800.0, 4600.0, 5000.0, "4,800 [4,600, 5,000]"),
        (3.0, 3.0, 3.0, "3.00"),
    ],
)
def test_an_interval_sets_its_own_digits(value: float, low: float, high: float, text: str) -> None:
    assert interval(Figure(value=value, low=low, high=high, n=5)) == text


def test_an_unmeasured_figure_is_a_dash() -> None:
    assert interval(None) == "–"


def test_tables_escape_every_text() -> None:
    html = table(("<a>", "&"), [("<script>", '"x"')], "<caption>")

    assert "<script>" not in html
    assert "<a>" not in html
    assert "&lt;script&gt;" in html
    assert "<caption>&lt;caption&gt;</caption>" in html
    assert "<script>" not in record_table({"<script>": "<script>"}, "x")


def test_records_are_flattened() -> None:
    record = {"rows": {"train": 5}, "labels": ["a", "b"], "runs": [{"ok": True}], "none": None, "empty": {}}

    assert dict(flatten(record)) == {
        "rows.train": "5",
        "labels": "a, b",
        "runs[0].ok": "yes",
        "none": "–",
        "empty": "none",
    }
