"""The loading client against a real server that fails at times."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator

import pytest
from benchmarks.http_load import ask_at, ask_each, ask_for, label_of, make_requests


class Server:
    """Answers each request with its own text as label; `fail` gets a 500, `drop` a closed connection."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.seen: list[str] = []
        self.port = 0
        self.ready = threading.Event()
        self.thread = threading.Thread(target=self.run)
        self.thread.start()
        assert self.ready.wait(10)

    def run(self) -> None:
        async def start() -> asyncio.Server:
            server = await asyncio.start_server(self.answer, "127.0.0.1", 0)
            self.port = server.sockets[0].getsockname()[1]
            self.ready.set()
            return server

        server = self.loop.run_until_complete(start())
        self.loop.run_forever()
        server.close()
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        self.loop.run_until_complete(asyncio.sleep(0))
        self.loop.close()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                length = int(head.lower().partition("content-length:")[2].split("\r\n")[0])
                text = json.loads(await reader.readexactly(length))["text"]
                self.seen.append(text)
                if text == "drop":
                    return
                body = json.dumps({"predictions": [{"label": text}]}).encode()
                if text.startswith("chunked"):
                    half = len(body) // 2
                    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
                    for part in (body[:half], body[half:], b""):
                        writer.write(b"%x\r\n%s\r\n" % (len(part), part))
                        await writer.drain()
                    continue
                status = b"500 Oops" if text == "fail" else b"200 OK"
                writer.write(b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n" % (status, len(body)))
                await writer.drain()
                writer.write(body)
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            pass
        finally:
            writer.close()


@pytest.fixture
def server() -> Iterator[Server]:
    found = Server()
    yield found
    found.loop.call_soon_threadsafe(found.loop.stop)
    found.thread.join(10)


def requests(server: Server, texts: list[str]) -> list[bytes]:
    return make_requests(server.port, "/v1/predict", [json.dumps({"text": text}).encode() for text in texts])


def test_each_request_is_sent_once_and_its_answer_kept(server: Server) -> None:
    texts = [f"{'chunked' if number % 3 else 'text'} {number}" for number in range(40)]
    load = ask_each(server.port, requests(server, texts), connections=4)
    assert [label_of(answer) for answer in load.answers] == texts
    assert sorted(server.seen) == sorted(texts)
    assert load.failures == 0
    assert len(load.latencies_ms) == 40
    assert 0 < load.percentile(50) <= load.percentile(99)


def test_errors_and_closed_connections_are_failures_and_the_load_goes_on(server: Server) -> None:
    load = ask_each(server.port, requests(server, ["a", "fail", "b", "drop", "c"]), connections=1)
    assert [label_of(answer) for answer in load.answers] == ["a", "", "b", "", "c"]
    assert load.failures == 2


def test_a_closed_loop_lasts_as_long_as_it_is_told(server: Server) -> None:
    load = ask_for(server.port, requests(server, ["a", "b"]), connections=3, seconds=0.3)
    assert 0.25 < load.elapsed_s < 2
    assert load.rps == pytest.approx(len(load.latencies_ms) / load.elapsed_s)
    assert set(server.seen) == {"a", "b"}


def test_an_open_loop_sends_at_its_rate(server: Server) -> None:
    load = ask_at(server.port, requests(server, ["a"]), rps=100, seconds=0.5)
    assert len(load.latencies_ms) == 50
    assert len(server.seen) == 50


def test_the_tutorial_s_answers_have_a_label_of_their_own() -> None:
    assert label_of(b'{"label": "LABEL_3", "score": 0.5}') == "LABEL_3"
    assert label_of(None) == ""
