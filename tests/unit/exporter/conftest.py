"""A run folder with a ledger, and a stand-in for Ray's metrics page on a real HTTP server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Counter, start_http_server

from equipoise import storage
from equipoise.runs import LedgerLine


@pytest.fixture
def put_lines(tmp_path: Path) -> Callable[..., Path]:
    """`put_lines("writer/000000.jsonl", line, …)` puts one ledger object; a line is changes or raw text."""

    def put(name: str, *lines: dict[str, Any] | str) -> Path:
        texts = [line if isinstance(line, str) else _line(line).model_dump_json() for line in lines]
        storage.put_bytes(f"{tmp_path}/ledger/{name}", ("\n".join(texts) + "\n").encode())
        return tmp_path

    return put


def _line(changes: dict[str, Any]) -> LedgerLine:
    """A line of $1 that took 10 core-seconds; a cost that is given is taken to be so many times the price."""
    price = changes.get("billed_cost_usd", 1.0) / changes.get("quantity", 10)
    return LedgerLine.model_validate(
        {
            "run_id": "tiny",
            "kind": "usage",
            "component": "training",
            "charge_class": "workload",
            "resource": "aws/c7i.large",
            "quantity": 10,
            "unit": "core-seconds",
            "list_unit_price": price,
            "effective_unit_price": price,
            "billed_cost_usd": 1.0,
            "period_start": "2026-01-01T00:00:00Z",
            "period_end": "2026-01-01T00:00:10Z",
            **changes,
        }
    )


class RayPage:
    """A page with the two counters as Ray names and tags them."""

    def __init__(self) -> None:
        registry = CollectorRegistry()
        self.requests = Counter(
            "ray_equipoise_requests", "-", ["model", "status", "replica"], registry=registry
        )
        self.busy = Counter("ray_equipoise_busy_seconds", "-", ["model", "replica"], registry=registry)
        self.other = Counter("ray_tasks", "-", ["name"], registry=registry)
        self.other.labels("x").inc(7)
        self._server, self._thread = start_http_server(0, addr="127.0.0.1", registry=registry)
        self.url = f"http://127.0.0.1:{self._server.server_port}/metrics"

    def stop(self) -> None:
        """Free the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def ray_page() -> Iterator[RayPage]:
    page = RayPage()
    yield page
    page.stop()
