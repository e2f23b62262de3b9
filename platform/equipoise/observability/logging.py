"""One log file a run keeps the detail; the terminal stays with the progress display."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from equipoise.errors import InputError

_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_CHATTY = ("ray", "ray.data", "optuna", "nncf", "transformers", "openvino", "deepspeed", "DeepSpeed", "httpx")


def default_log_file() -> Path:
    """Where commands without a run folder log to."""
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "equipoise" / "equipoise.log"


def log_to(file: Path) -> Path:
    """Send every logger and warning of this process to one file, and nothing to the terminal.

    Raises:
        InputError: the file cannot be written.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        handler = logging.FileHandler(file, encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"the log cannot be written: {error.strerror}",
            where=str(file),
            remedy="check its permissions, or set XDG_STATE_HOME to another folder",
        ) from error
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
        old.close()
    handler.setFormatter(logging.Formatter(_FORMAT))
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    logging.captureWarnings(True)
    quiet_libraries()
    return file


def quiet_libraries() -> None:
    """Take the handlers away that libraries put on their own loggers, so all of it reaches the file."""
    for name in _CHATTY:
        logger = logging.getLogger(name)
        for handler in list(logger.handlers):
            logger.removeHandler(handler)
        logger.propagate = True
        logger.setLevel(logging.WARNING)
