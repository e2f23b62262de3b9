"""A small Kubernetes API server over HTTP: objects, server-side apply with field owners, logs, and faults.

It speaks the paths that Equipoise uses, and answers as a real API server does. What it cannot tell is
whether a real one would: `tests/apiserver` asks that.
"""

from __future__ import annotations

import base64
import contextlib
import copy
import hashlib
import json
import socket
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

Object = dict[str, Any]
Key = tuple[str, str, str]

TOKEN = "test-token"  # noqa: S105


@dataclass
class Refusal:
    """An answer that the server gives instead of its own, so many times."""

    method: str
    part: str
    status: int
    message: str
    times: int = 1_000_000
    headers: dict[str, str] = field(default_factory=dict)
    dry_run: bool | None = None
    """Only for dry runs, only for real ones, or for both."""


class ApiServer:
    """State and address; `stop` and `start` take it away and bring it back at the same port."""

    def __init__(self) -> None:
        self.objects: dict[Key, Object] = {}
        self.owners: dict[Key, dict[str, str]] = {}
        self.namespaces = {"default", "research", "kube-system"}
        self.groups: dict[str, list[str]] = {
            "ray.io/v1": ["RayCluster", "RayJob", "RayService"],
            "scheduling.k8s.io/v1": ["PriorityClass"],
        }
        self.logs: dict[str, list[tuple[str, str]]] = {}
        self.break_log_after: list[int] = []
        self.refusals: list[Refusal] = []
        self.requests: list[tuple[str, str]] = []
        self.run: Callable[[str, list[str]], tuple[int, bytes, bytes]] = lambda pod, command: (0, b"", b"")
        self.connections: list[socket.socket] = []
        self.lock = threading.RLock()
        self.version = 0
        self._server: ThreadingHTTPServer | None = None
        self.port = 0
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        outer = self

        class Handler(_Handler):
            state = outer

        ThreadingHTTPServer.allow_reuse_address = True
        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None
        # Connections that are kept alive have threads of their own.
        for connection in self.connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self.connections.clear()

    def refuse(self, method: str, part: str, status: int, message: str, **options: Any) -> None:
        """Answer requests whose path holds `part` with a fault."""
        self.refusals.append(Refusal(method, part, status, message, **options))

    def put(self, plural: str, namespace: str, value: Object) -> Object:
        """Store an object as another client would have."""
        with self.lock:
            name = value["metadata"]["name"]
            stored = copy.deepcopy(value)
            stored["metadata"] |= {
                "namespace": namespace,
                "uid": str(uuid.uuid4()),
                "resourceVersion": self._next(),
                "generation": 1,
            }
            self.objects[(plural, namespace, name)] = stored
            return stored

    def set_status(self, plural: str, namespace: str, name: str, **status: Any) -> None:
        """Write a status, as an operator would."""
        with self.lock:
            found = self.objects[(plural, namespace, name)]
            found.setdefault("status", {}).update(status)
            found["metadata"]["resourceVersion"] = self._next()

    def _next(self) -> str:
        self.version += 1
        return str(self.version)

    def apply(self, key: Key, body: Object, manager: str, force: bool, dry_run: bool) -> tuple[int, Object]:
        """Server-side apply of one object."""
        with self.lock:
            held = self.objects.get(key)
            asked = body.get("metadata", {}).get("resourceVersion")
            if asked and (held is None or held["metadata"]["resourceVersion"] != asked):
                return 409, _status(
                    409, f'Operation cannot be fulfilled on {key[0]} "{key[2]}": the object has been modified'
                )
            wanted = _leaves({name: value for name, value in body.items() if name != "metadata"})
            owners = dict(self.owners.get(key, {}))
            current = _leaves(held or {})
            conflicts = [
                path
                for path, value in wanted.items()
                if owners.get(path, manager) != manager and current.get(path) != value
            ]
            if conflicts and not force:
                other = owners[conflicts[0]]
                return 409, _status(
                    409,
                    f'Apply failed with {len(conflicts)} conflicts: conflict with "{other}": {conflicts[0]}',
                )
            merged = _merge(copy.deepcopy(held or {}), body)
            changed = held is None or _leaves(merged.get("spec", {})) != _leaves(held.get("spec", {}))
            generation = (held or {}).get("metadata", {}).get("generation", 0) + int(changed)
            merged["metadata"] |= {
                "namespace": key[1],
                "uid": (held or {}).get("metadata", {}).get("uid", str(uuid.uuid4())),
                "resourceVersion": self._next(),
                "generation": generation,
            }
            if not dry_run:
                self.owners[key] = owners | dict.fromkeys(wanted, manager)
                self.objects[key] = merged
            return (200 if held else 201), merged


class _Handler(BaseHTTPRequestHandler):
    state: ApiServer
    protocol_version = "HTTP/1.1"

    def setup(self) -> None:
        super().setup()
        self.state.connections.append(self.connection)

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._answer("GET")

    def do_PATCH(self) -> None:
        self._answer("PATCH")

    def do_DELETE(self) -> None:
        self._answer("DELETE")

    def _answer(self, method: str) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length) or b"null")
        url = urlsplit(self.path)
        query = {key: values[-1] for key, values in parse_qs(url.query).items()}
        with self.state.lock:
            self.state.requests.append((method, self.path))
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._send(401, _status(401, "Unauthorized"))
            return
        for refusal in self.state.refusals:
            dry = "dryRun" in query
            fits = refusal.method == method and refusal.part in self.path and refusal.times > 0
            if fits and refusal.dry_run in (None, dry):
                refusal.times -= 1
                self._send(refusal.status, _status(refusal.status, refusal.message), refusal.headers)
                return
        self._route(method, url.path, query, body)

    def _route(self, method: str, path: str, query: dict[str, str], body: Any) -> None:
        parts = [part for part in path.split("/") if part]
        if parts[0] == "apis" and len(parts) == 2:
            self._send_group(parts[1])
            return
        version = parts[1] if parts[0] == "api" else "/".join(parts[1:3])
        rest = parts[2:] if parts[0] == "api" else parts[3:]
        if version != "v1" and version not in self.state.groups:
            self._send(404, None, text="404 page not found")
            return
        if not rest:
            kinds = [{"kind": kind} for kind in self.state.groups[version]]
            self._send(200, {"resources": kinds})
            return
        namespace = ""
        if rest[0] == "namespaces":
            namespace, rest = rest[1], rest[2:]
        plural, name, sub = [*rest, "", ""][:3]
        if sub == "exec":
            self._exec(name, parse_qs(urlsplit(self.path).query)["command"])
        elif sub == "log":
            self._stream_log(name, query)
        elif method == "PATCH":
            if namespace not in self.state.namespaces:
                self._send(404, _status(404, f'namespaces "{namespace}" not found'))
                return
            manager, force = query["fieldManager"], query.get("force") == "true"
            self._send(*self.state.apply((plural, namespace, name), body, manager, force, "dryRun" in query))
        elif name:
            self._one(method, (plural, namespace, name))
        else:
            self._list(plural, namespace, query)

    def _send_group(self, group: str) -> None:
        """Versions of a group; the one that was registered first is preferred."""
        served = [{"groupVersion": found} for found in self.state.groups if found.startswith(f"{group}/")]
        if not served:
            self._send(404, None, text="404 page not found")
            return
        self._send(200, {"name": group, "versions": served, "preferredVersion": served[0]})

    def _one(self, method: str, key: Key) -> None:
        with self.state.lock:
            found = self.state.objects.get(key)
            if found is not None and method == "DELETE":
                del self.state.objects[key]
                self.state.owners.pop(key, None)
        self._send(200, found) if found else self._send(404, _status(404, f'{key[0]} "{key[2]}" not found'))

    def _list(self, plural: str, namespace: str, query: dict[str, str]) -> None:
        wanted = dict(part.split("=", 1) for part in query.get("labelSelector", "").split(",") if "=" in part)
        with self.state.lock:
            found = [
                value
                for (kind, space, _), value in sorted(self.state.objects.items())
                if kind == plural and space == namespace and _selected(value, wanted, query)
            ]
        start, limit = int(query.get("continue", "0")), int(query.get("limit", "500"))
        metadata = {"continue": str(start + limit)} if start + limit < len(found) else {}
        self._send(200, {"items": found[start : start + limit], "metadata": metadata})

    def _stream_log(self, pod: str, query: dict[str, str]) -> None:
        since = query.get("sinceTime", "")[:19]
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        breaks = self.state.break_log_after.pop(0) if self.state.break_log_after else None
        sent = 0
        while True:
            lines = self.state.logs.get(pod, [])
            for stamp, line in lines[sent:]:
                sent += 1
                # A real server compares whole seconds.
                if stamp[:19] >= since:
                    data = f"{stamp} {line}\n".encode()
                    try:
                        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
                    except OSError:
                        return
                if breaks is not None and sent >= breaks:
                    self.wfile.flush()
                    self.close_connection = True
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
            if query.get("follow") != "true" or any(line == "END" for _, line in lines):
                break
            time.sleep(0.02)
        self.wfile.write(b"0\r\n\r\n")

    def _exec(self, pod: str, command: list[str]) -> None:
        """A WebSocket of the v4 channel protocol: the command's own output on channels 1 and 2, 3 its end."""
        key = self.headers["Sec-WebSocket-Key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        self.close_connection = True
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        digest = hashlib.sha1(key.encode(), usedforsecurity=False).digest()
        self.send_header("Sec-WebSocket-Accept", base64.b64encode(digest).decode())
        self.send_header("Sec-WebSocket-Protocol", "v4.channel.k8s.io")
        self.end_headers()
        status, output, errors = self.state.run(pod, command)
        for channel, content in ((1, output), (2, errors)):
            for start in range(0, len(content), 30_000):
                self._frame(0x82, bytes([channel]) + content[start : start + 30_000])
        cause = {"reason": "ExitCode", "message": str(status)}
        end = {"status": "Failure", "reason": "NonZeroExitCode", "details": {"causes": [cause]}}
        self._frame(0x82, b"\x03" + json.dumps(end if status else {"status": "Success"}).encode())
        self._frame(0x88, b"\x03\xe8")

    def _frame(self, opcode: int, payload: bytes) -> None:
        size = len(payload)
        length = bytes([size]) if size < 126 else b"\x7e" + size.to_bytes(2, "big")
        self.wfile.write(bytes([opcode]) + length + payload)
        self.wfile.flush()

    def _send(
        self, status: int, body: Any, headers: dict[str, str] | None = None, text: str | None = None
    ) -> None:
        content = text.encode() if text is not None else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain" if text is not None else "application/json")
        self.send_header("Content-Length", str(len(content)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)


def _status(code: int, message: str) -> Object:
    return {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "message": message}


def _selected(value: Object, labels: dict[str, str], query: dict[str, str]) -> bool:
    held = value["metadata"].get("labels", {})
    if any(held.get(key) != wanted for key, wanted in labels.items()):
        return False
    kind = query.get("fieldSelector", "")
    return not kind or value.get(kind.partition("=")[0]) == kind.partition("=")[2]


def _leaves(value: Any, path: str = "") -> dict[str, Any]:
    if isinstance(value, dict) and value:
        return {
            inner: leaf
            for key, child in value.items()
            for inner, leaf in _leaves(child, f"{path}.{key}").items()
        }
    return {path: value}


def _merge(base: Any, over: Any) -> Any:
    if isinstance(base, dict) and isinstance(over, dict):
        return {**base, **{key: _merge(base.get(key), value) for key, value in over.items()}}
    return copy.deepcopy(over)
