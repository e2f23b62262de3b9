"""What a run tells its reader while it works."""

from __future__ import annotations

from typing import Protocol


class Display(Protocol):
    """Shows stages and notes; the command line brings a live and a plain one."""

    def stage(self, number: int, total: int, name: str) -> None:
        """A stage begins."""
        ...

    def note(self, text: str) -> None:
        """One line worth keeping on the screen."""
        ...


class Silent:
    """Shows nothing."""

    def stage(self, number: int, total: int, name: str) -> None:
        pass

    def note(self, text: str) -> None:
        pass
