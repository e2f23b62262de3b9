"""The load client against a real aiohttp server on loopback."""

from __future__ import annotations

import asyncio
import json
import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from aiohttp import web

from equipoise.errors import ServiceError
from equipoise.ray_runtime import free_port
from equipoise_serving.load_client import MAX_FAILURES_IN_A_ROW, replay


class Echo:
    """Labels each text with itself in capitals; some texts make it misbehave."""

    def __init__(self) -> None:
        self.in_flight = 0
        self.most_in_flight = 0
        self.peers: set[object] = set()

    async def predict(self, request: web.Request) -> web.Response:
        text = json.loads(await request.read())["text"]
        self.peers.add(request.transport.get_extra_info("peername") if request.transport else None)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        # Later requests are quicker, so that answers overtake one another.
        await asyncio.sleep(1.0 if text == "slow" else 0.001 * (20 - len(text) % 20))
        self.in_flight -= 1
        if text == "fail":
            return web.Response(status=500, text="no")
        if text == "odd":
            return web.Response(text="[]")
        return web.json_response({"predictions": [{"label": text.upper()}]})


@contextmanager
def served(echo: Echo) -> Iterator[str]:
    loop = asyncio.new_event_loop()
    app = web.Application()
    app.router.add_post("/v1/predict", echo.predict)
    runner = web.AppRunner(app)
    port = free_port()

    async def start() -> None:
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()

    loop.run_until_complete(start())
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


def test_answers_come_back_in_the_order_of_the_texts() -> None:
    texts = ["x" * (number % 17) + str(number) for number in range(60)]
    echo, progress = Echo(), []
    with served(echo) as url:
        result = replay(url, texts, connections=4, timeout_s=5, on_progress=progress.append)
    assert result.labels == [text.upper() for text in texts]
    assert result.failures == 0
    assert progress == list(range(1, 61))
    assert result.latencies_ms.shape == (60,)
    assert 0 < result.p50_ms <= result.p99_ms
    assert result.rps == pytest.approx(60 / result.elapsed_s)


def test_connections_are_kept_and_bound_what_is_in_flight() -> None:
    echo = Echo()
    with served(echo) as url:
        replay(url, ["a"] * 40, connections=3, timeout_s=5)
    assert echo.most_in_flight == 3
    assert len(echo.peers) == 3


def test_failures_are_counted_and_left_out_of_the_figures() -> None:
    texts = ["a", "fail", "odd", "slow", "b"]
    with served(Echo()) as url:
        result = replay(url, texts, connections=2, timeout_s=0.4)
    assert result.labels == ["A", "", "", "", "B"]
    assert result.failures == 3
    assert [math.isnan(value) for value in result.latencies_ms] == [False, True, True, True, False]
    assert result.p99_ms < 400


def test_nothing_to_send() -> None:
    result = replay("http://127.0.0.1:1", [], connections=2, timeout_s=1)
    assert (result.labels, result.failures) == ([], 0)
    assert math.isnan(result.p50_ms)


def test_dead_endpoint_counts_as_failures_until_it_is_given_up() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    assert replay(url, ["a"] * 5, connections=2, timeout_s=1).failures == 5
    with pytest.raises(ServiceError, match="failed in a row"):
        replay(url, ["a"] * (MAX_FAILURES_IN_A_ROW * 3), connections=2, timeout_s=1)
