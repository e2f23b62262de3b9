"""Following a job to its end over a connection that may break."""

from __future__ import annotations

import queue
import threading
import time
from typing import Protocol

from equipoise.cluster.jobs import Job, Jobs
from equipoise.cluster.left_behind import naming
from equipoise.errors import EquipoiseError, InputError, ServiceError

_POLL_S = 2.0
_PATIENCE_S = 600.0
_LAST_WORDS_S = 15.0


class JobDisplay(Protocol):
    """What following a job tells its reader."""

    def state(self, job: Job) -> None:
        """It is in another state, or its reason has changed."""
        ...

    def log(self, text: str) -> None:
        """A piece of its log, lines and parts of lines as they come."""
        ...

    def note(self, text: str) -> None:
        """One line of our own."""
        ...


class _LogReader(threading.Thread):
    """Reads the log on its own connection, which it opens again where it left off."""

    def __init__(self, jobs: Jobs, job_id: str, poll_s: float) -> None:
        super().__init__(name=f"log of {job_id}", daemon=True)
        self.pieces: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.stopping = threading.Event()
        self._jobs, self._job_id, self._poll_s = jobs, job_id, poll_s
        self._cursor = ""

    def run(self) -> None:
        while True:
            last = self.stopping.is_set()
            try:
                for piece, cursor in self._jobs.tail(self._job_id, self._cursor):
                    self._cursor = cursor
                    self.pieces.put(piece)
            except EquipoiseError:
                # No log yet, or the line broke. The status, which is asked for beside, tells more.
                pass
            if last:
                return
            self.stopping.wait(self._poll_s)


def follow(
    jobs: Jobs,
    job_id: str,
    display: JobDisplay,
    *,
    poll_s: float = _POLL_S,
    patience_s: float = _PATIENCE_S,
) -> Job:
    """Show a job's states and its log until it has ended; returns it as it ended.

    Args:
        jobs: where it runs.
        job_id: its id.
        display: what it is shown on.
        poll_s: between two looks at its state.
        patience_s: how long nothing may answer before following is given up; the job goes on.

    Raises:
        InputError: there is no such job, or it was removed.
        ServiceError: nothing answered for `patience_s`.
    """
    reader = _LogReader(jobs, job_id, poll_s)
    reader.start()
    shown: tuple[str, str] | None = None
    lost_at: float | None = None
    remove = f"equipoise cancel {job_id} {jobs.options}"
    # Only a job that has ended has last words worth waiting for.
    last_words_s = 0.1
    try:
        while True:
            try:
                job = jobs.find(job_id)
            except ServiceError as error:
                lost_at = lost_at or time.monotonic()
                if time.monotonic() - lost_at > patience_s:
                    raise ServiceError(
                        f"no contact for {patience_s:.0f} s ({error.what}); the job goes on",
                        where=job_id,
                        remedy=f"equipoise logs {job_id} {jobs.options}; `{remove}` removes it",
                    ) from error
                if shown != ("", "lost"):
                    shown = ("", "lost")
                    display.note(f"no contact to {jobs.where}; trying again")
                _drain(reader, display)
                time.sleep(poll_s)
                continue
            except EquipoiseError as error:
                raise naming(error, [f"job {job_id}"], remove) from error
            lost_at = None
            if job is None:
                raise InputError("there is no such job, or it was removed", where=job_id)
            _drain(reader, display)
            if (job.state, job.message) != shown:
                shown = (job.state, job.message)
                display.state(job)
            if job.finished:
                last_words_s = _LAST_WORDS_S
                return job
            time.sleep(poll_s)
    finally:
        reader.stopping.set()
        reader.join(timeout=last_words_s)
        _drain(reader, display)


def _drain(reader: _LogReader, display: JobDisplay) -> None:
    while True:
        try:
            display.log(reader.pieces.get_nowait())
        except queue.Empty:
            return
