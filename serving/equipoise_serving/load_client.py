"""A closed loop of clients that replays texts against an endpoint and times each answer."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import aiohttp
import numpy as np
from numpy.typing import NDArray

from equipoise.errors import ServiceError

MAX_FAILURES_IN_A_ROW = 100
_PREDICT_PATH = "/v1/predict"
_HEADERS = {"content-type": "application/json"}


@dataclass(frozen=True)
class Replay:
    """What a replay saw; one entry a text, in the order of the texts.

    A failed request has the label "" and the latency NaN.
    """

    labels: list[str]
    latencies_ms: NDArray[np.float64]
    """From the request's start to its last byte."""
    elapsed_s: float
    failures: int

    @property
    def rps(self) -> float:
        """Answered requests per second."""
        return (len(self.labels) - self.failures) / self.elapsed_s if self.elapsed_s > 0 else 0.0

    @property
    def p50_ms(self) -> float:
        """Median latency of the answered requests; NaN where there are none."""
        return self._percentile(50)

    @property
    def p99_ms(self) -> float:
        """99th percentile of the answered requests' latency; NaN where there are none."""
        return self._percentile(99)

    def _percentile(self, share: float) -> float:
        answered = self.latencies_ms[~np.isnan(self.latencies_ms)]
        return float(np.percentile(answered, share)) if len(answered) else float("nan")


def replay(
    url: str,
    texts: Sequence[str],
    *,
    connections: int,
    timeout_s: float,
    on_progress: Callable[[int], None] | None = None,
) -> Replay:
    """Send each text once, one a request, over kept-alive connections that wait for their answers.

    Args:
        url: the endpoint's base URL.
        texts: what to send.
        connections: requests in flight at any time.
        timeout_s: longest wait for one answer.
        on_progress: called with the number of finished requests after each.

    Raises:
        ServiceError: the endpoint failed MAX_FAILURES_IN_A_ROW requests in a row.
    """
    return asyncio.run(_replay(url.rstrip("/") + _PREDICT_PATH, texts, connections, timeout_s, on_progress))


@dataclass
class _Tally:
    """What the workers share; they run on one event loop, so no lock."""

    labels: list[str]
    latencies_ms: NDArray[np.float64]
    on_progress: Callable[[int], None] | None
    finished: int = 0
    failures: int = 0
    failed_in_a_row: int = 0
    last_fault: str = field(default="")

    def record(self, position: int, label: str | None, elapsed_s: float, fault: str) -> None:
        self.finished += 1
        if label is None:
            self.failures += 1
            self.failed_in_a_row += 1
            self.last_fault = fault
        else:
            self.failed_in_a_row = 0
            self.labels[position] = label
            self.latencies_ms[position] = elapsed_s * 1000
        if self.on_progress is not None:
            self.on_progress(self.finished)


async def _replay(
    url: str,
    texts: Sequence[str],
    connections: int,
    timeout_s: float,
    on_progress: Callable[[int], None] | None,
) -> Replay:
    bodies = enumerate([json.dumps({"text": text}).encode() for text in texts])
    tally = _Tally([""] * len(texts), np.full(len(texts), np.nan), on_progress)
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=connections),
        timeout=aiohttp.ClientTimeout(total=timeout_s),
        headers=_HEADERS,
    ) as session:
        start = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for _ in range(min(connections, len(texts))):
                group.create_task(_work(session, url, bodies, tally))
        elapsed_s = time.perf_counter() - start
    if tally.failed_in_a_row >= MAX_FAILURES_IN_A_ROW:
        raise ServiceError(
            f"{tally.failed_in_a_row} requests failed in a row, the last with {tally.last_fault}", where=url
        )
    return Replay(tally.labels, tally.latencies_ms, elapsed_s, tally.failures)


async def _work(
    session: aiohttp.ClientSession, url: str, bodies: Iterator[tuple[int, bytes]], tally: _Tally
) -> None:
    for position, body in bodies:
        if tally.failed_in_a_row >= MAX_FAILURES_IN_A_ROW:
            return
        start = time.perf_counter()
        label, fault = await _ask(session, url, body)
        tally.record(position, label, time.perf_counter() - start, fault)


async def _ask(session: aiohttp.ClientSession, url: str, body: bytes) -> tuple[str | None, str]:
    """The label, or None and what went wrong."""
    try:
        async with session.post(url, data=body) as response:
            content = await response.read()
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        return None, f"{type(error).__name__}: {error}"
    if response.status != 200:
        return None, f"HTTP {response.status}"
    try:
        return str(json.loads(content)["predictions"][0]["label"]), ""
    except (ValueError, LookupError, TypeError):
        return None, "an answer of another shape"
