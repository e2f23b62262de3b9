"""What Ray's workers print goes to the log of the process that started them, not to its terminal."""

from __future__ import annotations

import logging
from typing import Any

_log = logging.getLogger("equipoise.workers")
_PRINTER = "ray_print_logs"
"""The name under which Ray registers its own printing of these lines."""


def log_workers() -> None:
    """Take the lines that Ray would print on standard error; call after each `ray.init`."""
    # Ray has no public place for it: it either prints them or throws them away.
    from ray._private.ray_logging import global_worker_stdstream_dispatcher as dispatcher

    dispatcher.remove_handler(_PRINTER)
    # Under Ray's own name, so that `ray.shutdown` takes it away again.
    dispatcher.add_handler(_PRINTER, _write)


def _write(printed: dict[str, Any]) -> None:
    """One batch of lines of one worker."""
    from ray._private.worker import filter_autoscaler_events

    who = printed.get("actor_name") or printed.get("task_name") or "worker"
    lines = printed.get("lines", [])
    if printed.get("pid") == "autoscaler":
        # It tells the state of a cluster every five seconds; what it decides and cannot place is news.
        lines = filter_autoscaler_events(lines)
    where = "" if printed.get("ip") == printed.get("localhost") else f" on {printed.get('ip')}"
    for line in lines:
        if line.strip():
            _log.info("%s %s%s: %s", who, printed.get("pid"), where, line.rstrip())
