"""A lean HTTP/1.1 client for loading: requests made beforehand, answers read with one search each.

A full client library takes longer for a request than the endpoint does, and on one machine that is time
that the endpoint does not get. What this one leaves out: redirects, TLS, answers without an end.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

_END = b"\r\n\r\n"
_LENGTH = b"content-length:"
_CLOSE = b"connection: close"
_LAST_CHUNK = b"0\r\n\r\n"


@dataclass
class Load:
    """What a load saw; latencies in milliseconds, from sending to the answer's last byte."""

    elapsed_s: float = 0.0
    latencies_ms: list[float] = field(default_factory=list)
    failures: int = 0
    """Requests that were not answered 200, refused ones among them."""
    refused_ms: list[float] = field(default_factory=list)
    """What it took to be told 429 or 503."""
    answers: list[bytes | None] = field(default_factory=list)
    """One a request where they were kept, in the order of the requests."""

    @property
    def rps(self) -> float:
        """Answered requests a second."""
        return len(self.latencies_ms) / self.elapsed_s

    def percentile(self, share: float) -> float:
        """Of the answered requests' latency."""
        return float(np.percentile(self.latencies_ms, share)) if self.latencies_ms else float("nan")


def make_requests(port: int, path: str, bodies: Sequence[bytes]) -> list[bytes]:
    """Whole POST requests with JSON bodies."""
    head = f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\ncontent-type: application/json\r\n".encode()
    return [head + b"content-length: " + str(len(body)).encode() + _END + body for body in bodies]


class _Connection(asyncio.Protocol):
    def __init__(self) -> None:
        self._buffer = bytearray()
        self._waiter: asyncio.Future[tuple[int, bytes]] | None = None
        self._transport: Any = None
        self.ends = False
        """Whether nothing follows the last answer; a proxy that gives way to its successor says so."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head = self._buffer.find(_END)
        if head < 0 or self._waiter is None:
            return
        header = bytes(self._buffer[:head]).lower()
        self.ends = _CLOSE in header
        at = header.find(_LENGTH)
        if at >= 0:
            length = int(header[at + len(_LENGTH) :].split(b"\r\n", 1)[0])
            if len(self._buffer) < head + 4 + length:
                return
            body = bytes(self._buffer[head + 4 : head + 4 + length])
        elif self._buffer.endswith(_LAST_CHUNK):
            body = _join_chunks(bytes(self._buffer[head + 4 :]))
        else:
            return
        self._buffer.clear()
        if not self._waiter.done():
            self._waiter.set_result((int(header[9:12]), body))

    def connection_lost(self, error: Exception | None) -> None:
        self.ends = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(error or ConnectionResetError("closed"))

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        self._waiter = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._waiter

    def close(self) -> None:
        self._transport.close()


def _join_chunks(content: bytes) -> bytes:
    """The body of a chunked answer that has come whole."""
    body = b""
    while content:
        size, _, rest = content.partition(b"\r\n")
        length = int(size.partition(b";")[0], 16)
        body, content = body + rest[:length], rest[length + 2 :]
    return body


async def _connect(port: int) -> _Connection:
    _, connection = await asyncio.get_running_loop().create_connection(_Connection, "127.0.0.1", port)
    return connection


async def _ask(
    connection: _Connection, port: int, request: bytes, load: Load
) -> tuple[_Connection, bytes | None]:
    start = time.perf_counter()
    try:
        if connection.ends:
            connection.close()
            connection = await _connect(port)
        status, body = await connection.ask(request)
    except OSError:
        load.failures += 1
        return await _connect(port), None
    took_ms = (time.perf_counter() - start) * 1000
    if status != 200:
        load.failures += 1
        if status in (429, 503):
            load.refused_ms.append(took_ms)
        return connection, None
    load.latencies_ms.append(took_ms)
    return connection, body


def ask_each(port: int, requests: Sequence[bytes], connections: int) -> Load:
    """Send each request once and keep the answers."""
    load = Load(answers=[None] * len(requests))

    async def work(numbers: Any) -> None:
        connection = await _connect(port)
        for number in numbers:
            connection, load.answers[number] = await _ask(connection, port, requests[number], load)
        connection.close()

    async def run() -> None:
        numbers = iter(range(len(requests)))
        await asyncio.gather(*(work(numbers) for _ in range(connections)))

    start = time.perf_counter()
    asyncio.run(run())
    load.elapsed_s = time.perf_counter() - start
    return load


def ask_for(port: int, requests: Sequence[bytes], connections: int, seconds: float) -> Load:
    """Keep so many requests under way for so long."""
    load = Load()

    async def work(first: int, until: float) -> None:
        connection = await _connect(port)
        number = first
        while time.perf_counter() < until:
            connection, _ = await _ask(connection, port, requests[number % len(requests)], load)
            number += connections
        connection.close()

    async def run() -> None:
        until = time.perf_counter() + seconds
        await asyncio.gather(*(work(first, until) for first in range(connections)))

    start = time.perf_counter()
    asyncio.run(run())
    load.elapsed_s = time.perf_counter() - start
    return load


def ask_at(port: int, requests: Sequence[bytes], rps: float, seconds: float, seed: int = 13) -> Load:
    """Send at a rate, with Poisson arrivals, whether or not earlier requests have been answered."""
    load = Load()
    gaps = np.random.default_rng(seed).exponential(1 / rps, int(rps * seconds))

    async def one(request: bytes, idle: list[_Connection]) -> None:
        connection = idle.pop() if idle else await _connect(port)
        connection, _ = await _ask(connection, port, request, load)
        idle.append(connection)

    async def run() -> None:
        idle: list[_Connection] = [await _connect(port) for _ in range(8)]
        due = time.perf_counter()
        tasks = []
        for number, gap in enumerate(gaps.tolist()):
            due += gap
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            tasks.append(asyncio.create_task(one(requests[number % len(requests)], idle)))
        await asyncio.gather(*tasks)
        for connection in idle:
            connection.close()

    start = time.perf_counter()
    asyncio.run(run())
    load.elapsed_s = time.perf_counter() - start
    return load


def label_of(answer: bytes | None) -> str:
    """The label of a `/v1/predict` answer, or of the tutorial's; empty without an answer."""
    if answer is None:
        return ""
    value = json.loads(answer)
    return str(value["predictions"][0]["label"] if "predictions" in value else value["label"])
