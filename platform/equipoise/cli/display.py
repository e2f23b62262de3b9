"""Progress in the terminal: a live line where there is one, plain lines where there is none."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from equipoise.observability.progress import Step
from equipoise.pipeline.watching import PlainPace, clock, step_line, watched_board


class TerminalDisplay:
    """Notes scroll; the newest step of the run stands below them."""

    def __init__(self, console: Console, live: Live | None) -> None:
        self.console, self.live = console, live
        self.started = time.time()
        self.headline = ""
        self.step = Step()
        self._pace = PlainPace()

    def stage(self, number: int, total: int, name: str) -> None:
        self.headline, self.step = f"{number}/{total} {name}", Step()
        self.console.print(
            f"[bold]{self.headline}[/bold]  {clock(time.time() - self.started)}", highlight=False
        )
        self._refresh()

    def note(self, text: str) -> None:
        self.console.print(f"  {text}", highlight=False, markup=False, soft_wrap=True)

    def show(self, step: Step) -> None:
        """Take the newest step from the board."""
        self.step = step
        self._refresh()

    def _refresh(self) -> None:
        line = step_line(self.headline, self.step, time.time() - self.started)
        if self.live is not None:
            self.live.update(Spinner("dots", Text(line, no_wrap=True, overflow="ellipsis")))
            return
        if self._pace.is_due(self.step):
            self.console.print(f"  {line}", highlight=False, markup=False, soft_wrap=True)


@contextlib.contextmanager
def open_display(quiet: bool = False) -> Iterator[TerminalDisplay]:
    """A display for the length of a run; on standard error where standard output is for JSON."""
    console = Console(stderr=quiet)
    with contextlib.ExitStack() as stack:
        live = None
        if console.is_terminal:
            live = stack.enter_context(Live(console=console, refresh_per_second=4, transient=True))
        display = TerminalDisplay(console, live)
        stack.enter_context(watched_board(display.show))
        yield display
