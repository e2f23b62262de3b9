"""Reading metrics over HTTP."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Counter, start_http_server

from equipoise.errors import InputError, ServiceError
from equipoise.exporter.client import read_metric, read_samples
from equipoise.ray_runtime import free_port


def test_samples_with_the_labels_are_summed(ray_page: Any) -> None:
    ray_page.requests.labels("a", "200", "r1").inc(2)
    ray_page.requests.labels("a", "200", "r2").inc(3)
    ray_page.requests.labels("a", "500", "r2").inc(1)
    name = "ray_equipoise_requests_total"
    assert read_metric(ray_page.url, name, {"model": "a", "status": "200"}) == 5
    assert read_metric(ray_page.url, name) == 6
    assert read_metric(ray_page.url, name, {"model": "b"}) is None
    assert read_metric(ray_page.url, "ray_equipoise_requests") is None


def test_only_the_prefix_is_parsed(ray_page: Any) -> None:
    assert {sample.name for sample in read_samples(ray_page.url, "ray_tasks_total")} == {"ray_tasks_total"}


def test_dead_endpoint_is_a_service_error() -> None:
    with pytest.raises(ServiceError, match="metrics cannot be read"):
        read_metric(f"http://127.0.0.1:{free_port()}/metrics", "x")


def test_silent_endpoint_ends_with_the_timeout() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        start = time.monotonic()
        with pytest.raises(ServiceError):
            read_metric(f"http://127.0.0.1:{listener.getsockname()[1]}/", "x", timeout_s=0.3)
        assert time.monotonic() - start < 3


def test_a_dns_url_reads_the_page_of_every_address(monkeypatch: pytest.MonkeyPatch, ray_page: Any) -> None:
    ray_page.requests.labels("a", "200", "r1").inc(2)
    port = int(ray_page.url.rpartition(":")[2].partition("/")[0])
    second = CollectorRegistry()
    Counter("ray_equipoise_requests", "-", ["model"], registry=second).labels("a").inc(3)
    server, thread = start_http_server(port, addr="127.0.0.2", registry=second)
    resolve = socket.getaddrinfo

    def two_pods(host: str, *rest: Any, **more: Any) -> list[Any]:
        # What a headless service answers: the same port at the address of each pod.
        pods = ("127.0.0.1", "127.0.0.2") if host == "ray-metrics" else (host,)
        return [found for pod in pods for found in resolve(pod, *rest, **more)]

    monkeypatch.setattr(socket, "getaddrinfo", two_pods)
    try:
        name = "ray_equipoise_requests_total"
        assert read_metric(f"dns+http://127.0.0.1:{port}/metrics", name) == 2
        assert read_metric(f"dns+http://ray-metrics:{port}/metrics", name) == 5
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_dns_name_without_address_is_a_service_error() -> None:
    with pytest.raises(ServiceError, match=r"dns\+http://nowhere\.invalid:8080/: metrics cannot be read"):
        read_metric("dns+http://nowhere.invalid:8080/", "x")


def test_other_schemes_are_refused() -> None:
    with pytest.raises(InputError, match="no http or https URL"):
        read_metric("file:///etc/passwd", "x")


class Garbage(BaseHTTPRequestHandler):
    """Answers with what is no metrics page."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"x{y=} z\n" if self.path == "/text" else b"x\xff")

    def log_message(self, format: str, *args: Any) -> None:
        """Keep quiet."""


@pytest.fixture
def garbage_url() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Garbage)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize("path", ["text", "bytes"])
def test_page_that_is_none_is_a_service_error(garbage_url: str, path: str) -> None:
    with pytest.raises(ServiceError, match="no metrics page"):
        read_metric(f"{garbage_url}/{path}", "x")
