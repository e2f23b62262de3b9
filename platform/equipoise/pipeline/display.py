"""What a run tells its reader while it works."""

from __future__ import annotations

import sys
from typing import Protocol


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

    def stage(self, number: int, total: int, name: str) -> None:
        self.say(f"{number}/{total} {name}")

    def note(self, text: str) -> None:
        self.say(f"  {text}")

    def say(self, line: str) -> None:
        """Any line."""
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()


class Silent:
    """Shows nothing."""

    def stage(self, number: int, total: int, name: str) -> None:
        pass

    def note(self, text: str) -> None:
        pass
