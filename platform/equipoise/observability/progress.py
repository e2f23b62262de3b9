"""Progress from any process of a run to the terminal of the one that started it.

Workers on any node tell a board (a Ray actor) how far they are; the display reads it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import Any

BOARD = "equipoise-progress"
NAMESPACE = "equipoise"
_INTERVAL_S = 0.5
_last_sent_s = 0.0


@dataclass
class Step:
    """Where a stage is: `done` of `total` units (0 where unknown), and figures worth showing.

    The clock runs since `started_s`, when `before` units were done: by an earlier try, for instance.
    """

    text: str = ""
    done: float = 0
    total: float = 0
    figures: dict[str, float] = field(default_factory=dict)
    started_s: float = 0.0
    before: float = 0

    def left_s(self, now_s: float) -> float | None:
        """Seconds left at the pace since the clock runs; None before there is one."""
        own = self.done - self.before
        if own <= 0 or self.total <= 0 or self.done > self.total:
            return None
        return (now_s - self.started_s) / own * (self.total - self.done)


class Board:
    """Holds the newest step of a run."""

    def __init__(self) -> None:
        self.step = Step()

    def tell(self, text: str, done: float, total: float, figures: dict[str, float]) -> None:
        """Replace the step; the clock restarts where the text changes, or less is done than before."""
        if text == self.step.text and done >= self.step.done:
            self.step = replace(self.step, done=done, total=total, figures=figures)
        else:
            self.step = Step(text, done, total, figures, time.time(), done)

    def read(self) -> Step:
        """The newest step."""
        return self.step


def start_board() -> Any:
    """Create the board, or join one that stands; it lives as long as the handle that is returned."""
    import ray

    actor = ray.remote(num_cpus=0, max_restarts=-1)(Board)
    return actor.options(name=BOARD, namespace=NAMESPACE, get_if_exists=True).remote()


def tell(text: str, done: float, total: float, *, force: bool = False, **figures: float) -> None:
    """Report from any Ray process, at most twice a second; silent where no board stands."""
    global _last_sent_s
    now = time.monotonic()
    if not force and done < total and now - _last_sent_s < _INTERVAL_S:
        return
    _last_sent_s = now
    import ray

    if not ray.is_initialized():
        return
    try:
        board = ray.get_actor(BOARD, namespace=NAMESPACE)
    except ValueError:
        return
    board.tell.remote(text, done, total, figures)
