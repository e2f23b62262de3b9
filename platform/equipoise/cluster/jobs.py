"""A submitted run, wherever it runs, and what a place that runs them can do."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol

from equipoise import errors
from equipoise.cluster.names import attempt_id, attempt_of
from equipoise.errors import EquipoiseError, ServiceError

State = Literal["suspended", "starting", "running", "succeeded", "failed", "stopped"]

FINISHED: frozenset[State] = frozenset({"succeeded", "failed", "stopped"})

_LONGEST = 400
_EXIT = re.compile(r"exit code:? (-?\d+)")


@dataclass(frozen=True)
class Job:
    """One submission."""

    id: str
    state: State
    message: str = ""
    """Why it is in that state, where that is known."""
    started: str = ""
    """ISO 8601, UTC; empty while it has not."""
    ended: str = ""
    exit_code: int | None = None
    """Of the entrypoint, where it ended by itself."""
    never_starts: bool = False
    """Whether waiting is in vain: for its image, or for what its pods' configuration names."""

    @property
    def finished(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.state in FINISHED

    def to_json(self) -> dict[str, Any]:
        """For a script."""
        return asdict(self)


class Jobs(Protocol):
    """A place that runs jobs: a Ray cluster's Jobs API, or Kubernetes with KubeRay."""

    where: str
    """What messages call it."""
    options: str
    """Options that make another command talk to the same place."""

    def find(self, job_id: str) -> Job | None:
        """A job, or None.

        Raises:
            ServiceError: the place does not answer.
        """
        ...

    def list_jobs(self) -> list[Job]:
        """Every job of Equipoise's."""
        ...

    def tail(self, job_id: str, cursor: str) -> Iterator[tuple[str, str]]:
        """Pieces of the log as they come, each with the cursor to go on from, until the job or the line ends.

        Raises:
            ServiceError: the connection broke, or there is no log yet.
        """
        ...

    def log(self, job_id: str) -> str:
        """The whole log so far.

        Raises:
            ServiceError: there is none yet.
        """
        ...

    def standing(self, job: Job) -> list[str]:
        """What stays of a job until it is cancelled, as `cancel` would name it."""
        ...

    def cancel(self, job_id: str) -> list[str]:
        """End a job and remove what it left; names what was removed or stopped."""
        ...


def latest_attempt(jobs: Jobs, first: str) -> tuple[int, Job | None]:
    """The newest attempt of a submission id, and its number; (0, None) where there was none."""
    found = {attempt: job for job in jobs.list_jobs() if (attempt := attempt_of(job.id, first)) is not None}
    if not found:
        return 0, None
    newest = max(found)
    return newest, found[newest]


def next_id(jobs: Jobs, first: str) -> tuple[str, Job | None]:
    """What submitting a run again means: the job to join, or the id of a new attempt.

    A job that waits, runs or has succeeded is joined; after a failed or stopped one comes the next
    attempt, since Ray takes no id twice.

    Returns:
        The id, and the job where it is there already.
    """
    attempt, job = latest_attempt(jobs, first)
    if job is not None and job.state not in ("failed", "stopped"):
        return job.id, job
    return attempt_id(first, attempt + 1), None


def short_message(message: str) -> str:
    """Ray's message in one line, without the log that it carries along."""
    line = " ".join(message.partition(", last available logs")[0].split())
    return line if len(line) <= _LONGEST else line[: _LONGEST - 1] + "…"


def exit_code(message: str) -> int | None:
    """The entrypoint's exit code out of Ray's message about it."""
    found = _EXIT.search(message)
    return int(found.group(1)) if found else None


def failure(job: Job, last_line: str, again: str) -> EquipoiseError:
    """The error that a failed job ends the command with: the job's own exit status, and its own words.

    One that can never start is an InputError.

    Args:
        job: as it ended.
        last_line: of its log; best its own fault, which starts with `equipoise: `.
        again: the command that shows more.
    """
    kinds: dict[int, type[EquipoiseError]] = {
        1: EquipoiseError,
        2: errors.InputError,
        3: errors.InfeasibleError,
        4: errors.OverBudgetError,
        5: errors.ReconcileError,
        6: ServiceError,
        130: errors.InterruptedRunError,
    }
    if job.never_starts:
        remedy = "correct it, remove what is there, and submit the run again"
        return errors.InputError(job.message, where=job.id, remedy=remedy)
    said = last_line.removeprefix("equipoise: ")
    if said == last_line:
        said = ": ".join(part for part in (job.message, last_line) if part) or "no reason was given"
    if job.state == "stopped":
        return ServiceError("it was stopped", where=job.id, remedy="submit the run again to go on")
    kind = kinds.get(job.exit_code, ServiceError) if job.exit_code is not None else ServiceError
    return kind(f"the job failed: {said}", where=job.id, remedy=again)
