"""API keys: hashed at rest, compared in constant time, rotated by changing a file.

A key is 256 random bits, so one SHA-256 is enough: there is nothing to guess, and a slow hash would
be paid on every request.
"""

from __future__ import annotations

import datetime
import hashlib
import hmac
import json
import logging
import os
import secrets
import tempfile
import time
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from equipoise.errors import ConfigError

PREFIX = "eqp_"
_RELOAD_S = 1.0
_log = logging.getLogger("ray.serve")


class StoredKey(BaseModel):
    """What is kept of a key."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    """Names the key in logs and when it is revoked; not secret."""
    name: str
    """Whose it is."""
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    created: str
    """ISO 8601, UTC."""


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    keys: list[StoredKey]


def read_keys(file: Path) -> list[StoredKey]:
    """The keys of a file.

    Raises:
        ConfigError: it is missing or damaged; what it holds is not shown.
    """
    try:
        return _File.model_validate_json(file.read_bytes()).keys
    except OSError as error:
        raise ConfigError(
            f"key file cannot be read: {error.strerror}", where=str(file), remedy="equipoise keys makes one"
        ) from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        spot = ".".join(map(str, first["loc"])) or "the file"
        raise ConfigError(f"key file is damaged at {spot}: {first['msg']}", where=str(file)) from None


def create_key(file: Path, name: str) -> tuple[str, StoredKey]:
    """Add a key; returns it, this once, and what was stored of it.

    Raises:
        ConfigError: the file is damaged or cannot be written.
    """
    held = read_keys(file) if file.exists() else []
    key = PREFIX + secrets.token_urlsafe(32)
    stored = StoredKey(
        id=secrets.token_hex(4),
        name=name,
        sha256=_digest(key.encode()),
        created=datetime.datetime.now(tz=datetime.UTC).isoformat(timespec="seconds"),
    )
    _write(file, [*held, stored])
    return key, stored


def revoke_key(file: Path, identifier: str) -> None:
    """Take a key out; endpoints that read this file refuse it within a second or two.

    Raises:
        ConfigError: no key has this id, or the file cannot be read or written.
    """
    held = read_keys(file)
    left = [key for key in held if key.id != identifier]
    if len(left) == len(held):
        raise ConfigError(
            "no key has this id", where=str(file), value=identifier, remedy="list them: equipoise keys FILE"
        )
    _write(file, left)


class ApiKeys:
    """The keys of a file as they are now; looks at the file at most once a second.

    A file that cannot be read, or is damaged, leaves the last good keys in force.

    Raises:
        ConfigError: the file cannot be read at the start.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._seen = _stamp(file)
        self._keys = read_keys(file)
        self._looked_at = time.monotonic()

    def find(self, presented: bytes) -> StoredKey | None:
        """The stored key that this is, or None; takes the same time whichever it is."""
        self._refresh()
        digest = _digest(presented)
        found = None
        for key in self._keys:
            if hmac.compare_digest(key.sha256, digest):
                found = key
        return found

    def _refresh(self) -> None:
        now = time.monotonic()
        if now - self._looked_at < _RELOAD_S:
            return
        self._looked_at = now
        try:
            stamp = _stamp(self._file)
            if stamp != self._seen:
                self._keys = read_keys(self._file)
                self._seen = stamp
        except (OSError, ConfigError) as error:
            _log.warning("the API keys stay as they were: %s", error)


def presented_key(headers: dict[bytes, bytes]) -> bytes:
    """The key of a request: `authorization: Bearer KEY` or `x-api-key: KEY`; empty without one."""
    scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
    if scheme.lower() == b"bearer":
        return token.strip()
    return headers.get(b"x-api-key", b"").strip()


def _digest(key: bytes) -> str:
    return hashlib.sha256(key).hexdigest()


def _stamp(file: Path) -> tuple[int, int, int]:
    try:
        found = file.stat()
    except FileNotFoundError:
        return (0, 0, 0)
    return found.st_mtime_ns, found.st_ino, found.st_size


def _write(file: Path, keys: list[StoredKey]) -> None:
    content = json.dumps({"keys": [key.model_dump() for key in keys]}, indent=1) + "\n"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        # Made by mkstemp, so that only its owner may read it from the first byte on.
        handle, draft = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as output:
                output.write(content)
                output.flush()
                os.fsync(output.fileno())
            Path(draft).replace(file)
        except OSError:
            Path(draft).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise ConfigError(f"key file cannot be written: {error.strerror}", where=str(file)) from error
