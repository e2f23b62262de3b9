"""The newest step of a run, read off its board, and told in one line."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator

from equipoise.observability.progress import BOARD, NAMESPACE, Step

_POLL_S = 0.5


@contextlib.contextmanager
def watched_board(show: Callable[[Step], None]) -> Iterator[None]:
    """Hand the newest step to `show` twice a second, from a thread of its own, for the length of a run."""
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(_POLL_S):
            step = _read_board()
            if step is not None:
                show(step)

    thread = threading.Thread(target=watch, name="display", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(timeout=5)


def step_line(headline: str, step: Step, elapsed_s: float) -> str:
    """Stage, what is done of how much, figures, time left, time so far."""
    parts = [headline, step.text or "…"]
    if step.total > 1:
        parts.append(f"{step.done:g}/{step.total:g}")
    parts += [f"{name.replace('_', ' ')} {value:.4g}" for name, value in step.figures.items()]
    left = step.left_s(time.time())
    if left is not None and step.total > 1:
        parts.append(f"{clock(left)} left")
    return " · ".join([*parts, clock(elapsed_s)])


def clock(seconds: float) -> str:
    """Seconds as m:ss."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}:{rest:02d}"


class PlainPace:
    """Where there is no live line: a step is worth a line when it is a new one, and every 15 seconds."""

    _EVERY_S = 15.0

    def __init__(self) -> None:
        self._told_s = 0.0
        self._told = ""

    def is_due(self, step: Step) -> bool:
        """Whether to print it; counts as printed then."""
        if not step.text or (step.text == self._told and time.time() - self._told_s <= self._EVERY_S):
            return False
        self._told_s, self._told = time.time(), step.text
        return True


def _read_board() -> Step | None:
    ray = sys.modules.get("ray")
    if ray is None or not getattr(ray, "is_initialized", lambda: False)():
        return None
    try:
        board = ray.get_actor(BOARD, namespace=NAMESPACE)
        step: Step = ray.get(board.read.remote(), timeout=2)
        return step
    except (ValueError, RuntimeError, OSError, ray.exceptions.RayError):
        return None  # Ray is starting or stopping: nothing to show at the moment.
