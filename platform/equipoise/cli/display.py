"""Progress in the terminal: a live line where there is one, plain lines where there is none."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Iterator

from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from equipoise.observability.progress import BOARD, NAMESPACE, Step

_POLL_S = 0.5
_PLAIN_EVERY_S = 15.0


class TerminalDisplay:
    """Notes scroll; the newest step of the run stands below them."""

    def __init__(self, console: Console, live: Live | None) -> None:
        self.console, self.live = console, live
        self.started = time.time()
        self.headline = ""
        self.step = Step()
        self._printed_s = 0.0
        self._printed_text = ""

    def stage(self, number: int, total: int, name: str) -> None:
        self.headline, self.step = f"{number}/{total} {name}", Step()
        self.console.print(
            f"[bold]{self.headline}[/bold]  {_clock(time.time() - self.started)}", highlight=False
        )
        self._refresh()

    def note(self, text: str) -> None:
        self.console.print(f"  {text}", highlight=False, markup=False, soft_wrap=True)

    def show(self, step: Step) -> None:
        """Take the newest step from the board."""
        self.step = step
        self._refresh()

    def _refresh(self) -> None:
        line = _line(self.headline, self.step, time.time() - self.started)
        if self.live is not None:
            self.live.update(Spinner("dots", Text(line, no_wrap=True, overflow="ellipsis")))
            return
        due = time.time() - self._printed_s > _PLAIN_EVERY_S
        if self.step.text and (due or self.step.text != self._printed_text):
            self._printed_s, self._printed_text = time.time(), self.step.text
            self.console.print(f"  {line}", highlight=False, markup=False, soft_wrap=True)


@contextlib.contextmanager
def open_display(quiet: bool = False) -> Iterator[TerminalDisplay]:
    """A display for the length of a run; on standard error where standard output is for JSON."""
    console = Console(stderr=quiet)
    stop = threading.Event()
    with contextlib.ExitStack() as stack:
        live = None
        if console.is_terminal:
            live = stack.enter_context(Live(console=console, refresh_per_second=4, transient=True))
        display = TerminalDisplay(console, live)
        thread = threading.Thread(target=_watch, args=(display, stop), name="display", daemon=True)
        thread.start()
        try:
            yield display
        finally:
            stop.set()
            thread.join(timeout=5)


def _watch(display: TerminalDisplay, stop: threading.Event) -> None:
    while not stop.wait(_POLL_S):
        step = _read_board()
        if step is not None:
            display.show(step)


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


def _line(headline: str, step: Step, elapsed_s: float) -> str:
    parts = [headline, step.text or "…"]
    if step.total > 1:
        parts.append(f"{step.done:g}/{step.total:g}")
    parts += [f"{name.replace('_', ' ')} {value:.4g}" for name, value in step.figures.items()]
    left = step.left_s(time.time())
    if left is not None and step.total > 1:
        parts.append(f"{_clock(left)} left")
    return " · ".join([*parts, _clock(elapsed_s)])


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}:{rest:02d}"
