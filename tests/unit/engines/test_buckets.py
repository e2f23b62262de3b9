from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from equipoise.engines.buckets import BUCKET_TOKENS, LIKE_LENGTH, ROWS, LengthBuckets

QUEUES = st.lists(st.integers(1, 128), min_size=1, max_size=60)


@given(QUEUES, st.integers(1, 32), st.integers(1, 1024))
def test_every_row_comes_once_the_oldest_first_and_within_the_budget(
    tokens: list[int], max_rows: int, max_tokens: int
) -> None:
    waiting: LengthBuckets[int] = LengthBuckets()
    for row, length in enumerate(tokens):
        waiting.add(row, length, float(row))
    left = set(range(len(tokens)))
    while batch := waiting.take(max_rows, max_tokens):
        assert min(left) in batch
        assert len(batch) <= max_rows
        longest, shortest = max(tokens[row] for row in batch), min(tokens[row] for row in batch)
        assert len(batch) == 1 or len(batch) * longest <= max_tokens
        assert shortest > LIKE_LENGTH**2 * longest - 2 * BUCKET_TOKENS
        left -= set(batch)
    assert not left


def test_rows_of_another_length_wait_for_a_batch_of_their_own() -> None:
    waiting: LengthBuckets[str] = LengthBuckets()
    for arrived, (row, tokens) in enumerate([("short", 8), ("long", 100), ("as short", 7)]):
        waiting.add(row, tokens, arrived)
    assert waiting.take(32, 1024) == ["short", "as short"]
    assert waiting.take(32, 1024) == ["long"]
    assert waiting.take(32, 1024) == []


@pytest.mark.parametrize(("tokens", "rows"), [(64, 16), (60, 16), (40, 24), (12, 64), (1100, 1)])
def test_a_full_batch_has_as_many_rows_as_an_engine_runs_without_repeating_one(
    tokens: int, rows: int
) -> None:
    buckets: LengthBuckets[int] = LengthBuckets()
    for row in range(100):
        buckets.add(row, tokens, float(row))
    assert len(buckets.take(100, 1024)) == rows
    assert rows in ROWS
