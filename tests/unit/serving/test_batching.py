"""The batcher on a real event loop and a real thread, with an engine that takes its time."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from equipoise.engines.buckets import BUCKET_TOKENS, LIKE_LENGTH
from equipoise_serving.batching import (
    Answer,
    Batcher,
    count_text_tokens,
)
from equipoise_serving.errors import RequestError


class Engine:
    """Answers a row with itself; a batch takes `seconds_per_token` of its padded tokens."""

    def __init__(self, seconds_per_token: float = 0.0) -> None:
        self.seconds_per_token = seconds_per_token
        self.batches: list[list[Any]] = []
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, rows: list[Any]) -> tuple[list[Answer], float]:
        self.gate.wait(5)
        self.batches.append(rows)
        if "broken" in rows:
            raise ValueError("the model does not like it")
        seconds = self.seconds_per_token * len(rows) * max(map(len, rows))
        time.sleep(seconds)
        return [{"label": row} for row in rows], seconds


def run(
    engine: Callable[[list[Any]], tuple[list[Answer], float]],
    work: Callable[[Batcher], Awaitable[Any]],
    *,
    observe: Any = None,
    **limits: Any,
) -> Any:
    async def inner() -> Any:
        with ThreadPoolExecutor(1) as thread:
            sizes = {"max_rows": 8, "max_tokens": 64, "max_wait_s": 60.0, "max_waiting_rows": 1000} | limits
            given = {"observe": observe} if observe else {}
            return await work(Batcher(engine, len, thread=thread, **sizes, **given))

    return asyncio.run(inner())


async def backlog(engine: Engine, batcher: Batcher, rows: list[str]) -> list[Any]:
    """Submit rows one a request while the engine is held, then let it go."""
    engine.gate.clear()
    first = asyncio.create_task(batcher.submit(["first"]))
    while batcher.waiting_rows or not first.get_coro():
        await asyncio.sleep(0)
    await asyncio.sleep(0.02)
    tasks = [asyncio.create_task(batcher.submit([row])) for row in rows]
    await asyncio.sleep(0.02)
    engine.gate.set()
    return await asyncio.gather(first, *tasks, return_exceptions=True)


def test_an_idle_engine_starts_at_once() -> None:
    async def work(batcher: Batcher) -> float:
        start = time.perf_counter()
        answered = await batcher.submit(["a"])
        assert answered.answers == [{"label": "a"}]
        assert answered.queued_s < 0.05
        return time.perf_counter() - start

    assert run(Engine(), work) < 0.1


def test_what_arrives_while_the_engine_works_is_one_batch() -> None:
    engine = Engine()
    run(engine, lambda batcher: backlog(engine, batcher, list("abcde")))
    assert engine.batches == [["first"], list("abcde")]


def test_batches_hold_rows_of_like_length_and_the_oldest_goes_first() -> None:
    engine = Engine()
    rows = ["s" * 4, "l" * 40, "s" * 3, "l" * 38, "s" * 2]
    run(engine, lambda batcher: backlog(engine, batcher, rows))
    assert engine.batches[1:] == [[rows[0], rows[2], rows[4]], [rows[1]], [rows[3]]]


def test_a_failed_batch_fails_its_own_requests_only() -> None:
    engine = Engine()
    found = run(engine, lambda batcher: backlog(engine, batcher, ["a" * 30, "broken", "b" * 30]))
    assert [type(answer).__name__ for answer in found] == ["Answered", "Answered", "ValueError", "Answered"]


def test_rows_of_no_length_and_answers_that_are_missing_hold_nothing_up() -> None:
    async def work(batcher: Batcher) -> list[Any]:
        return [await batcher.submit([""]), await batcher.submit(["a"])]

    engine = Engine()
    assert [each.answers for each in run(engine, work)] == [[{"label": ""}], [{"label": "a"}]]

    def forgets(rows: list[Any]) -> tuple[list[Answer], float]:
        return ([], 0.0) if rows == ["a"] else ([{"label": "b"}], 0.0)

    async def ask(batcher: Batcher) -> list[Any]:
        return await asyncio.gather(batcher.submit(["a"]), batcher.submit(["b" * 40]), return_exceptions=True)

    lost, kept = run(forgets, ask)
    assert isinstance(lost, ValueError)
    assert kept.answers == [{"label": "b"}]


def test_a_caller_that_gave_up_is_not_computed() -> None:
    engine = Engine()

    async def work(batcher: Batcher) -> None:
        engine.gate.clear()
        first = asyncio.create_task(batcher.submit(["a"]))
        await asyncio.sleep(0.02)
        given_up = asyncio.create_task(batcher.submit(["gone"]))
        await asyncio.sleep(0.02)
        given_up.cancel()
        engine.gate.set()
        await first
        await batcher.submit(["b"])
        assert batcher.waiting_rows == 0
        assert batcher.expected_wait_s == 0

    run(engine, work)
    assert engine.batches == [["a"], ["b"]]


def test_a_full_queue_is_refused_at_once_and_says_when_to_come_again() -> None:
    engine = Engine(seconds_per_token=0.01)

    async def work(batcher: Batcher) -> list[RequestError]:
        await batcher.submit(["learn"])
        tasks = [asyncio.create_task(batcher.submit(["x" * 10])) for _ in range(30)]
        await asyncio.sleep(0)
        assert batcher.expected_wait_s == pytest.approx(2.1)
        refused = [
            error for task in tasks if task.done() and isinstance(error := task.exception(), RequestError)
        ]
        for task in tasks:
            task.cancel()
        return refused

    refused = run(engine, work, max_wait_s=2.05)
    assert len(refused) == 9
    assert {(error.status, error.code) for error in refused} == {(429, "overloaded")}
    assert {error.headers for error in refused} == {((b"retry-after", b"2"),)}


def test_an_idle_engine_takes_a_request_larger_than_the_queue() -> None:
    async def work(batcher: Batcher) -> int:
        return len((await batcher.submit(["a"] * 50)).answers)

    assert run(Engine(), work, max_waiting_rows=10) == 50


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.lists(st.integers(1, 100), min_size=1, max_size=9), min_size=1, max_size=25),
    st.integers(1, 8),
    st.integers(1, 128),
)
def test_every_row_is_answered_once_in_order_within_the_budget(
    lengths: list[list[int]], max_rows: int, max_tokens: int
) -> None:
    engine = Engine()
    observed: list[tuple[int, float]] = []
    requests = [[f"{n}." + "x" * length for length in each] for n, each in enumerate(lengths)]

    async def work(batcher: Batcher) -> list[Any]:
        return await asyncio.gather(*(batcher.submit(rows) for rows in requests))

    found = run(
        engine,
        work,
        max_rows=max_rows,
        max_tokens=max_tokens,
        observe=lambda rows, seconds: observed.append((rows, seconds)),
    )
    assert [[answer["label"] for answer in each.answers] for each in found] == requests
    assert sum(rows for rows, _ in observed) == sum(map(len, requests))
    for batch in engine.batches:
        longest, shortest = max(map(len, batch)), min(map(len, batch))
        assert len(batch) <= max_rows
        assert len(batch) == 1 or len(batch) * longest <= max_tokens
        assert shortest > (LIKE_LENGTH**2) * longest - 2 * BUCKET_TOKENS


def test_busy_seconds_of_the_requests_add_up_to_the_engine_s() -> None:
    engine = Engine(seconds_per_token=1e-4)
    spent: list[float] = []

    async def work(batcher: Batcher) -> list[Any]:
        return await asyncio.gather(*(batcher.submit(["ab", "abc" * 9]) for _ in range(9)))

    found = run(engine, work, observe=lambda rows, seconds: spent.append(seconds))
    assert sum(each.busy_s for each in found) == pytest.approx(sum(spent))


@pytest.mark.parametrize(
    ("text", "tokens"),
    [("", 3), ("one two three", 5), ("word " * 1000, 64), ("x" * 10_000, 64), ("字" * 60, 10)],
)
def test_tokens_are_estimated_without_a_tokenizer(text: str, tokens: int) -> None:
    assert count_text_tokens(text, 64) == tokens
