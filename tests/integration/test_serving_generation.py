"""A language model on a real local Ray, behind HAProxy: keys, streams, and counts that agree."""

from __future__ import annotations

import json
import os
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import psutil
import pytest

from equipoise.bundle import Bundle
from equipoise.config.serving import ServingConfig
from equipoise.exporter.client import read_metric
from equipoise.ray_runtime import free_port, start_ray, stop_ray
from equipoise_serving import endpoint
from equipoise_serving.api_keys import create_key

# Warnings of other packages about each other, at their own import.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:Using extra keyword arguments on:DeprecationWarning"),
]


@pytest.fixture(scope="module")
def ray_metrics_url() -> Iterator[str]:
    runtime = start_ray()
    try:
        yield runtime["metrics_url"]
        endpoint.shutdown()
    finally:
        stop_ray()


@pytest.fixture(scope="module")
def client(
    ray_metrics_url: str, writers: dict[str, Bundle], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Any]:
    """OpenAI's own client with a known key, of the OpenVINO bundle."""
    del ray_metrics_url
    keys = tmp_path_factory.mktemp("keys") / "keys.json"
    key, _ = create_key(keys, "shop")
    config = ServingConfig(port=free_port(), api_keys=str(keys), max_batch_size=8, max_cached_tokens=1024)
    url = endpoint.deploy(writers["openvino"].folder, config, model_name="tiny")
    with openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0) as found:
        yield found


def wait_for(check: Callable[[], bool], seconds: float = 30) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if check():
            return True
        time.sleep(0.25)
    return check()


def test_what_clients_were_told_is_what_ray_counted(client: Any, ray_metrics_url: str) -> None:
    def counted(name: str, **tags: str) -> float:
        return read_metric(ray_metrics_url, name, {"model": "tiny", **tags}) or 0.0

    def ask(number: int) -> Any:
        options: Any = {"model": "tiny", "max_tokens": 4 + number, "seed": number}
        if number % 2:
            message = {"role": "user", "content": "parcel " * number}
            return client.chat.completions.create(messages=[message], **options).usage
        streamed: Any = {"stream": True, "stream_options": {"include_usage": True}}
        return list(client.completions.create(prompt="a parcel", **options, **streamed))[-1].usage

    with ThreadPoolExecutor(8) as pool:
        usages = list(pool.map(ask, range(12)))
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="eqp_wrong").completions.create(model="tiny", prompt="a")
    with pytest.raises(openai.BadRequestError):
        client.completions.create(model="tiny", prompt="")
    read = sum(usage.prompt_tokens for usage in usages)
    written = sum(usage.completion_tokens for usage in usages)
    assert wait_for(lambda: counted("ray_equipoise_tokens_total", kind="completion") == written)
    assert counted("ray_equipoise_tokens_total", kind="prompt") == read
    for status, count in (("200", 12), ("401", 1), ("400", 1)):
        assert wait_for(lambda s=status, c=count: counted("ray_equipoise_requests_total", status=s) == c)
    assert counted("ray_equipoise_rows_total") == 12
    assert counted("ray_equipoise_busy_seconds_total") > 0


def test_the_replica_holds_no_torch(client: Any) -> None:
    assert client.models.list().data[0].id == "tiny"
    maps = [
        Path(f"/proc/{process.pid}/maps").read_text()
        for process in psutil.Process(os.getpid()).children(recursive=True)
        if "ServeReplica" in " ".join(process.cmdline())
    ]
    assert maps
    assert all("libopenvino" in text for text in maps)
    assert not any("libtorch" in text for text in maps)


def test_malformed_bodies_leave_the_replica_alive(client: Any) -> None:
    pids = replica_pids()
    url, key = str(client.base_url).rstrip("/"), client.api_key
    for path in ("completions", "chat/completions"):
        for body, status in (
            (b"{", 400),
            (b"[" * 4000, 400),
            (b'{"model": "\xff"}', 400),
            (b'{"model": "tiny", "prompt": [' + b"9" * 400 + b"]}", 400),
            (b'{"model": "tiny", "prompt": "' + b"a" * 2**21 + b'"}', 413),
        ):
            headers = {"content-type": "application/json", "x-api-key": key}
            request = urllib.request.Request(f"{url}/{path}", body, headers)
            # A body that is refused half-way may find the connection closed instead.
            try:
                with pytest.raises(urllib.error.HTTPError) as refused:
                    urllib.request.urlopen(request, timeout=20)
            except urllib.error.URLError:
                assert status == 413
                continue
            with refused.value as answer:
                assert answer.code == status, body[:80]
                assert json.load(answer)["error"]["type"] == "invalid_request_error"
    host, port = url.removeprefix("http://").removesuffix("/v1").split(":")
    for cut in (b"", b"POST /v1/completions HTTP/1.1\r\n", b"\x16\x03\x01\x02\x00\x01"):
        with socket.create_connection((host, int(port)), timeout=20) as connection:
            connection.sendall(cut)
    assert client.completions.create(model="tiny", prompt="a", max_tokens=2).usage.prompt_tokens == 1
    assert replica_pids() == pids


def replica_pids() -> set[int]:
    return {
        process.pid
        for process in psutil.Process(os.getpid()).children(recursive=True)
        if "ServeReplica" in " ".join(process.cmdline())
    }
