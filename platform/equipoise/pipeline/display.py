"""What a run tells its reader while it works."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import Protocol

from equipoise.observability.progress import Step
from equipoise.pipeline.watching import PlainPace, step_line, watched_board


class Display(Protocol):
    """Shows stages and notes; the command line brings a live and a plain one."""

    def stage(self, number: int, total: int, name: str) -> None:
        """A stage begins."""
        ...

    def note(self, text: str) -> None:
        """One line worth keeping on the screen."""
        ...


class Lines:
    """One flushed line an event on standard output, for the logs of a job."""

    def __init__(self) -> None:
        self._started_s = time.time()
        self._headline = ""
        self._pace = PlainPace()

    def stage(self, number: int, total: int, name: str) -> None:
        self._headline = f"{number}/{total} {name}"
        self.say(self._headline)

    def note(self, text: str) -> None:
        self.say(f"  {text}")

    def show(self, step: Step) -> None:
        """The newest step of the run, where it is a new one or some time has gone by."""
        if self._pace.is_due(step):
            self.say(f"  {step_line(self._headline, step, time.time() - self._started_s)}")

    def say(self, line: str) -> None:
        """Any line."""
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()


@contextlib.contextmanager
def open_lines() -> Iterator[Lines]:
    """Lines that tell of a run's steps too, for its length."""
    lines = Lines()
    with watched_board(lines.show):
        yield lines


class Silent:
    """Shows nothing."""

    def stage(self, number: int, total: int, name: str) -> None:
        pass

    def note(self, text: str) -> None:
        pass
