"""A job that runs elsewhere, line by line: its states, its log, and notes of our own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from equipoise.cluster.jobs import Job

_FAULT = "equipoise: "


class LineDisplay:
    """Log lines as the job wrote them; states and notes behind a mark.

    Args:
        quiet: on standard error, where standard output is for JSON.
    """

    def __init__(self, quiet: bool = False) -> None:
        self._err = quiet
        self._partial = ""
        self._fault = self._line = ""

    @property
    def last_line(self) -> str:
        """The newest line of the log that starts as a fault of the job's own does, else the newest of all."""
        return self._fault or self._line

    def state(self, job: Job) -> None:
        self._end_line()
        self.note(f"{job.id} {job.state}" + (f": {job.message}" if job.message else ""))

    def note(self, text: str) -> None:
        typer.echo(f"· {text}", err=self._err)

    def log(self, text: str) -> None:
        typer.echo(text, nl=False, err=self._err)
        *lines, self._partial = (self._partial + text).split("\n")
        for line in lines:
            self._line = line.strip() or self._line
            if line.startswith(_FAULT):
                self._fault = line

    def _end_line(self) -> None:
        if self._partial:
            typer.echo("", err=self._err)
            self._partial = ""
