"""The exporter's HTTP endpoint."""

from __future__ import annotations

from threading import Thread
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, start_http_server

from equipoise.errors import ServiceError
from equipoise.exporter.collector import CostCollector

DEFAULT_PORT = 9464


class Exporter:
    """A running exporter."""

    def __init__(self, server: WSGIServer, thread: Thread, host: str) -> None:
        self._server = server
        self._thread = thread
        self.url = f"http://{host}:{server.server_port}/metrics"
        """Where it is scraped."""

    def wait(self) -> None:
        """Block until it is stopped."""
        self._thread.join()

    def stop(self) -> None:
        """Stop answering and free the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def start_exporter(
    run_location: str, *, ray_metrics_url: str | None, host: str = "127.0.0.1", port: int = DEFAULT_PORT
) -> Exporter:
    """Answer scrapes in threads of this process.

    Args:
        run_location: the run folder, a path or URI.
        ray_metrics_url: Ray's metrics page; None where nothing is served.
        host: address to listen on.
        port: port to listen on; 0 takes a free one.

    Raises:
        ServiceError: the address cannot be listened on.
    """
    registry = CollectorRegistry()
    registry.register(CostCollector(run_location, ray_metrics_url))
    try:
        server, thread = start_http_server(port, addr=host, registry=registry)
    except OSError as error:
        raise ServiceError(
            f"cannot be listened on: {error.strerror or error}",
            where=f"{host}:{port}",
            remedy="choose another port",
        ) from error
    return Exporter(server, thread, host)


def serve_metrics(
    run_location: str, *, ray_metrics_url: str | None, host: str = "127.0.0.1", port: int = DEFAULT_PORT
) -> None:
    """Answer scrapes until the process is stopped.

    Args:
        run_location: the run folder, a path or URI.
        ray_metrics_url: Ray's metrics page; None where nothing is served.
        host: address to listen on.
        port: port to listen on.

    Raises:
        ServiceError: the address cannot be listened on.
    """
    exporter = start_exporter(run_location, ray_metrics_url=ray_metrics_url, host=host, port=port)
    try:
        exporter.wait()
    finally:
        exporter.stop()
