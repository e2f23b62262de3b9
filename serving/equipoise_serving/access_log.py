"""One JSON line a request, without its payload, written by a thread of its own."""

from __future__ import annotations

import logging
import logging.handlers
import os
import queue
import time
from pathlib import Path

import orjson

MAX_BYTES = 64 * 2**20
FILES = 4
_PATH_CHARACTERS = 200


class AccessLog:
    """Appends to `access-PID.jsonl` in a folder; renewed at 64 MiB, three older files kept.

    Args:
        folder: made where it is missing.

    Raises:
        OSError: the file cannot be opened.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.file = folder / f"access-{os.getpid()}.jsonl"
        writer = logging.handlers.RotatingFileHandler(
            self.file, maxBytes=MAX_BYTES, backupCount=FILES - 1, encoding="utf-8"
        )
        lines: queue.SimpleQueue[logging.LogRecord] = queue.SimpleQueue()
        self._listener = logging.handlers.QueueListener(lines, writer)
        self._listener.start()
        self._logger = logging.Logger("equipoise.access", logging.INFO)
        self._logger.addHandler(logging.handlers.QueueHandler(lines))

    def write(
        self, *, request_id: str, method: str, path: str, status: int, rows: int, elapsed_s: float, key: str
    ) -> None:
        """One request.

        Args:
            request_id: as sent back in `x-request-id`.
            path: without its query.
            rows: texts of the request; 0 where it was refused before they were counted.
            elapsed_s: from the first byte of the request to its answer.
            key: id of the API key, empty where none was asked for or it was not known.
        """
        line = {
            "time": time.time(),
            "request_id": request_id,
            "method": method,
            "path": path[:_PATH_CHARACTERS],
            "status": status,
            "rows": rows,
            "ms": round(elapsed_s * 1000, 3),
            "key": key,
        }
        self._logger.info(orjson.dumps(line).decode())

    def close(self) -> None:
        """Write what is left."""
        self._listener.stop()
        for handler in self._listener.handlers:
            handler.close()
