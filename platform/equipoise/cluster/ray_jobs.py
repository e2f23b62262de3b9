"""Runs on a Ray cluster that is there already, over its Jobs API."""

from __future__ import annotations

import asyncio
import datetime
import os
import shlex
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from equipoise.cluster.jobs import Job, State, short_message
from equipoise.cluster.names import MANAGER
from equipoise.errors import ConfigError, EquipoiseError, InputError, InterruptedRunError, ServiceError
from equipoise.observability.logging import quiet_libraries
from equipoise.ray_runtime import MEASURED_SLOT

T = TypeVar("T")

# The most that Ray lists at once.
_MOST_NODES = 10_000
_TIMEOUT_S = 30.0
_UPLOAD_S = 600.0
# The dashboard sends nothing while a job is silent; a broken line must not look like one.
_SILENCE_S = 300.0
_TOKEN_FILE = Path("~/.ray/auth_token")

_STATES: dict[str, State] = {
    "PENDING": "starting",
    "RUNNING": "running",
    "SUCCEEDED": "succeeded",
    "FAILED": "failed",
    "STOPPED": "stopped",
}


def find_token(token_file: Path | None) -> str | None:
    """Ray's token: from the given file, `RAY_AUTH_TOKEN`, `RAY_AUTH_TOKEN_PATH` or `~/.ray/auth_token`.

    Raises:
        ConfigError: the given file cannot be read, or is empty.
    """
    if token_file is None and os.environ.get("RAY_AUTH_TOKEN"):
        return os.environ["RAY_AUTH_TOKEN"].strip()
    named = token_file or (Path(path) if (path := os.environ.get("RAY_AUTH_TOKEN_PATH")) else None)
    file = (named or _TOKEN_FILE).expanduser()
    try:
        token = file.read_text(encoding="utf-8").strip()
    except OSError as error:
        if named is None:
            return None
        raise ConfigError(f"the token cannot be read: {error.strerror}", where=str(file)) from error
    if not token:
        raise ConfigError("the token file is empty", where=str(file))
    return token


def find_address(address: str | None) -> str:
    """The dashboard's URL: the given one, else `RAY_API_SERVER_ADDRESS`, else an http `RAY_ADDRESS`.

    Raises:
        ConfigError: none is given, or it is not one of a dashboard.
    """
    found = address or os.environ.get("RAY_API_SERVER_ADDRESS") or os.environ.get("RAY_ADDRESS")
    if not found:
        raise ConfigError(
            "no Ray cluster is named",
            where="--address",
            remedy="give its dashboard's URL, such as http://127.0.0.1:8265",
        )
    url = found if "://" in found else f"http://{found}"
    if not url.startswith(("http://", "https://")):
        raise ConfigError(
            "is no dashboard's URL",
            where="--address",
            value=found,
            remedy="give http://HOST:8265, or forward that port",
        )
    return url.rstrip("/")


class RayJobs:
    """The Jobs API of one Ray cluster.

    Args:
        address: the dashboard's URL, as `find_address` gives it.
        token: Ray's token, where the cluster wants one.
        token_file: the file that was given for it; the commands that messages name give it too.

    Raises:
        ServiceError: the dashboard does not answer.
        ConfigError: it wants a token, or another one.
    """

    def __init__(self, address: str, token: str | None, token_file: Path | None = None) -> None:
        self.where = f"Ray at {address}"
        self.options = f"--on ray --address {address}"
        if token_file is not None:
            self.options += f" --token-file {shlex.quote(str(token_file))}"
        self._client = self._call(lambda: _open_client(address, token))

    def check(self) -> list[str]:
        """What can be known before anything is sent.

        Raises:
            InputError: the cluster runs another Ray, or no node of it has the slot that timings take.
        """
        import ray

        found = self._client._server_ray_version
        if found != ray.__version__:
            raise InputError(
                f"the cluster runs Ray {found}, and this is {ray.__version__}: a driver joins its own only",
                where=self.where,
                remedy="use the environment that the cluster was started in",
            )
        resources = self._resources()
        if not resources.get(MEASURED_SLOT):
            raise InputError(
                f"no node offers {MEASURED_SLOT}, so candidates could never be timed",
                where=self.where,
                remedy=f"start each worker with --resources='{{\"{MEASURED_SLOT}\": 1}}'",
            )
        return [f"the cluster has {resources.get('CPU', 0):g} CPUs and {resources.get('GPU', 0):g} GPUs"]

    def submit(self, job_id: str, entrypoint: str, package: Path, metadata: dict[str, str]) -> None:
        """Upload a package and start a job in it.

        Raises:
            InputError: the id is taken, or the package is refused.
            ServiceError: the cluster does not answer.
        """
        self._call(
            lambda: self._client.submit_job(
                entrypoint=entrypoint,
                submission_id=job_id,
                runtime_env={"working_dir": str(package)},
                metadata={**metadata, "manager": MANAGER},
            )
        )

    def find(self, job_id: str) -> Job | None:
        try:
            return read_job(self._call(lambda: self._client.get_job_info(job_id)))
        except InputError:
            return None

    def list_jobs(self) -> list[Job]:
        found = self._call(self._client.list_jobs)
        ours = [job for job in found if (job.metadata or {}).get("manager") == MANAGER and job.submission_id]
        return [read_job(job) for job in ours]

    def log(self, job_id: str) -> str:
        """The whole log of a job."""
        found: str = self._call(lambda: self._client.get_job_logs(job_id))
        return found

    def tail(self, job_id: str, cursor: str) -> Iterator[tuple[str, str]]:
        """Pieces of the log, read from its start; the cursor is how many characters were given out."""
        skip = done = int(cursor or 0)
        seen = 0
        for piece in _drive(self._client.tail_job_logs(job_id), self._explain):
            fresh = piece[max(0, skip - seen) :]
            seen += len(piece)
            if fresh:
                done += len(fresh)
                yield fresh, str(done)

    def standing(self, job: Job) -> list[str]:
        """The job itself while it has not ended; afterwards there is nothing to stop."""
        return [] if job.finished else [f"job {job.id} at {self.where}"]

    def cancel(self, job_id: str) -> list[str]:
        stopped = self._call(lambda: self._client.stop_job(job_id))
        return [f"job {job_id} at {self.where}"] if stopped else []

    def _resources(self) -> dict[str, float]:
        """The cluster's resources over all nodes that live."""
        path = f"/api/v0/nodes?detail=1&limit={_MOST_NODES}"
        answer = self._call(lambda: self._client._do_request("GET", path))
        if answer.status_code != 200:
            raise ServiceError(f"its nodes cannot be listed: HTTP {answer.status_code}", where=self.where)
        found: dict[str, float] = {}
        for node in answer.json()["data"]["result"]["result"]:
            if node.get("state") != "ALIVE":
                continue
            for name, amount in (node.get("resources_total") or {}).items():
                found[name] = found.get(name, 0.0) + float(amount)
        return found

    def _call(self, do: Callable[[], T]) -> T:
        """Run a call of Ray's client; its faults become ours."""
        try:
            return do()
        except EquipoiseError:
            raise
        except Exception as error:
            raise self._explain(error) from error

    def _explain(self, error: Exception) -> EquipoiseError:
        said = " ".join(str(error).split())
        if type(error).__name__ == "AuthenticationError":
            return ConfigError(
                "the cluster does not accept the token" if "failed" in said else "the cluster wants a token",
                where=self.where,
                remedy="give it by --token-file, RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH",
            )
        if "already exists" in said:
            return InputError("a job of this id is there already", where=self.where)
        if "status code 404" in said or "does not exist" in said:
            return InputError(f"no such job: {said[:200]}", where=self.where)
        return ServiceError(
            f"the Jobs API does not answer: {said[:300] or type(error).__name__}",
            where=self.where,
            remedy="is the cluster up, and its dashboard reachable? then repeat the command",
        )


def read_job(details: Any) -> Job:
    """A job's state, out of Ray's own record."""
    return Job(
        id=details.submission_id,
        state=_STATES[str(getattr(details.status, "value", details.status))],
        message=short_message(str(details.message or "")),
        started=_time(details.start_time),
        ended=_time(details.end_time),
        exit_code=details.driver_exit_code,
    )


def _time(milliseconds: int | None) -> str:
    if not milliseconds:
        return ""
    return datetime.datetime.fromtimestamp(milliseconds / 1000, tz=datetime.UTC).isoformat(timespec="seconds")


def _open_client(address: str, token: str | None) -> Any:
    from ray.job_submission import JobSubmissionClient

    # Ray announces uploads and closed connections on standard error.
    quiet_libraries()

    class Client(JobSubmissionClient):
        """Ray's client, which sets no timeouts of its own."""

        def _do_request(self, method: str, endpoint: str, **kwargs: Any) -> Any:
            kwargs.setdefault("timeout", _UPLOAD_S if method == "PUT" else _TIMEOUT_S)
            return super()._do_request(method, endpoint, **kwargs)

    # These two would replace the address that was asked for.
    hidden = {name: os.environ.pop(name, None) for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS")}
    try:
        return Client(address, headers={"Authorization": f"Bearer {token}"} if token else {})
    finally:
        os.environ.update({name: value for name, value in hidden.items() if value is not None})


def _drive(pieces: AsyncIterator[str], explain: Callable[[Exception], EquipoiseError]) -> Iterator[str]:
    """An asynchronous stream, in step; broken or silent for too long, it raises."""
    loop = asyncio.new_event_loop()
    try:
        while True:
            try:
                yield loop.run_until_complete(asyncio.wait_for(anext(pieces), _SILENCE_S))
            except StopAsyncIteration:
                return
            except (KeyboardInterrupt, GeneratorExit):
                raise
            except InterruptedRunError:
                raise
            except Exception as error:
                raise explain(error) from error
    finally:
        loop.run_until_complete(pieces.aclose())  # type: ignore[attr-defined]
        loop.close()
