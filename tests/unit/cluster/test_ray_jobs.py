"""Ray's own client against a dashboard of one page: its version."""

from __future__ import annotations

import json
import shlex
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import ray

from equipoise.cli.place import open_ray


@pytest.fixture
def dashboard() -> Iterator[tuple[str, list[str]]]:
    """Its address, and the `Authorization` of each request."""
    seen: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            seen.append(self.headers.get("Authorization", ""))
            versions = {"version": "4", "ray_version": ray.__version__, "ray_commit": "x"}
            content = json.dumps(versions).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", seen
    server.shutdown()
    server.server_close()


def test_the_commands_that_messages_name_give_the_token_file_too(
    dashboard: tuple[str, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, seen = dashboard
    file = tmp_path / "ray token"
    file.write_text("secret-of-the-file\n")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "another")
    jobs = open_ray(address, file)
    assert set(seen) == {"Bearer secret-of-the-file"}
    assert shlex.split(jobs.options) == ["--on", "ray", "--address", address, "--token-file", str(file)]
    assert "secret-of-the-file" not in jobs.options
    assert shlex.split(open_ray(address, None).options) == ["--on", "ray", "--address", address]
