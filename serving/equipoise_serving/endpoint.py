"""Starting and stopping the endpoint on the Ray that is already running.

Ray and Serve are imported inside the functions: Serve reads its flags from the environment at
import, and `equipoise.ray_runtime.start_ray` sets them.
"""

from __future__ import annotations

import re
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

from equipoise.bundle import open_bundle
from equipoise.config.serving import ServingConfig
from equipoise.costs.capacity import ReplicaCapacity
from equipoise.errors import ConfigError, ServiceError
from equipoise_serving.api_keys import read_keys
from equipoise_serving.app import build_app
from equipoise_serving.front import start_front
from equipoise_serving.replica_ledger import ReplicaLedger
from equipoise_serving.writable import check_writes

if TYPE_CHECKING:
    from ray.serve import Application

_POLL_S = 0.2
_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def deploy(
    bundle_folder: Path,
    serving: ServingConfig,
    *,
    model_name: str,
    app_name: str = "equipoise",
    num_cpus: float | None = None,
    usd_per_core_second: float | None = None,
    capacity: ReplicaCapacity | None = None,
    ledger: ReplicaLedger | None = None,
    on_head: bool = False,
    timeout_s: float = 180,
) -> str:
    """Serve a bundle and wait until it answers.

    An application of the same name is replaced replica by replica, each old one serving until a new
    one is warm; if the successor does not start, the old one goes on.

    Args:
        bundle_folder: the bundle; verified here, and again by each replica.
        serving: host, port, replicas, batching, limits.
        model_name: name in paths, answers and metrics.
        app_name: name of the Serve application.
        num_cpus: cores that Ray reserves for each replica; default: those that it is pinned to. A rolling
            update needs as many again.
        usd_per_core_second: price of a core, for the dollars that each answer states.
        capacity: the load curve, where `serving.max_replicas` is set.
        ledger: where replicas meter themselves; None meters nothing.
        on_head: keep the replicas on the cluster's head, where a loopback front reaches them.
        timeout_s: longest wait for every replica to be ready.

    Returns:
        The base URL, such as `http://127.0.0.1:8000`.

    Raises:
        BundleError: the bundle is missing, incomplete or was tampered with, or cannot write.
        ConfigError: the host is not loopback and there are no API keys, or they cannot be read; replicas
            are to be scaled, and there is no load curve for it.
        ServiceError: the port is taken, a replica fails to start, or the time is over.
    """
    bundle = open_bundle(bundle_folder)
    folder = bundle.folder
    check_writes(bundle.manifest, serving, str(folder))
    serving = check_access(serving)
    deadline = time.monotonic() + timeout_s
    base_url = start_front(serving)

    app = build_app(
        str(folder),
        serving,
        model_name=model_name,
        num_cpus=num_cpus,
        usd_per_core_second=usd_per_core_second,
        capacity=capacity,
        ledger=ledger,
        on_head=on_head,
    )
    is_update = _serves(app_name)
    _submit(app, app_name)
    try:
        _wait_running(app_name, deadline)
        _wait_answering(f"{base_url}/v2/models/{model_name}/ready", deadline)
    except ServiceError as error:
        if is_update:
            stays = "the bundle before it is served still"
            raise ServiceError(error.what, where=error.where, value=error.value, remedy=stays) from error
        undeploy(app_name)
        raise
    return base_url


def check_access(serving: ServingConfig) -> ServingConfig:
    """The config with absolute paths, for replicas run in folders of their own.

    Raises:
        ConfigError: the host is not loopback and there are no API keys, or they cannot be read.
    """
    if serving.api_keys is None:
        if not serving.is_loopback:
            raise ConfigError(
                "an endpoint that other machines reach needs API keys",
                where="serving.host",
                value=serving.host,
                remedy="make a key with equipoise keys, and name its file in serving.api_keys",
            )
    elif not read_keys(Path(serving.api_keys)):
        raise ConfigError(
            "the key file holds no key", where=serving.api_keys, remedy="equipoise keys adds one"
        )
    paths = {"api_keys": serving.api_keys, "access_log": serving.access_log}
    absolute = {name: str(Path(path).absolute()) for name, path in paths.items() if path is not None}
    return serving.model_copy(update=absolute)


def undeploy(app_name: str = "equipoise") -> None:
    """Stop an application and wait until its replicas are gone; nothing where there is none."""
    from ray import serve

    if app_name in serve.status().applications:
        serve.delete(app_name)


def shutdown() -> None:
    """Stop Serve: every application, and the front.

    Needed on a cluster, or to change the front's port. An embedded Ray takes Serve with it when it
    ends; stopping Serve first only makes Ray print an error of its own on standard output.
    """
    from ray import serve

    serve.shutdown()  # type: ignore[no-untyped-call]


def check_vacant(app_name: str) -> None:
    """Check that the Ray that was joined serves nothing but `app_name`, which a killed try may have left.

    Raises:
        ServiceError: it serves applications.
    """
    from ray import serve

    found = sorted(set(serve.status().applications) - {app_name})
    if found:
        raise ServiceError(
            f"the cluster serves {', '.join(found)} on the path that the run's choice is tested on",
            where="Ray Serve",
            remedy="undeploy it, or run on a cluster of its own",
        )


def _serves(app_name: str) -> bool:
    from ray import serve

    application = serve.status().applications.get(app_name)
    deployments = application.deployments.values() if application else ()
    return any(
        count for each in deployments for state, count in each.replica_states.items() if state == "RUNNING"
    )


def _submit(app: Application, app_name: str) -> None:
    from ray import serve
    from ray.exceptions import RayError
    from ray.serve.exceptions import RayServeException

    target = serve.RunTarget(app, name=app_name, route_prefix="/")
    try:
        serve.run_many([target], wait_for_applications_running=False)
    except (RayError, RayServeException) as error:
        raise ServiceError(f"Serve refuses it: {_reason([str(error)])}", where=app_name) from error


def _wait_running(app_name: str, deadline: float) -> None:
    from ray import serve

    while True:
        application = serve.status().applications.get(app_name)
        state = str(application.status.value) if application else "NOT_STARTED"
        if state == "RUNNING":
            return
        messages = [d.message for d in application.deployments.values()] if application else []
        if state in ("DEPLOY_FAILED", "UNHEALTHY") and application:
            messages.append(application.message)
            raise ServiceError(
                f"a replica does not start: {_reason(messages)}",
                where=app_name,
                remedy="see the Serve logs of Ray's session",
            )
        if time.monotonic() > deadline:
            raise ServiceError(
                f"replicas were not ready in time: {_reason(messages)}",
                where=app_name,
                remedy="are enough CPUs free for every replica?",
            )
        time.sleep(_POLL_S)


def _wait_answering(url: str, deadline: float) -> None:
    """The front learns of a new replica a moment after Serve calls it running."""
    problem = "no answer"
    while time.monotonic() < deadline:
        try:
            with _direct.open(url, timeout=5):
                return
        except urllib.error.HTTPError as error:
            problem = f"HTTP {error.code}"
            error.close()
        except OSError as error:
            problem = str(error)
        time.sleep(_POLL_S)
    raise ServiceError(f"the endpoint does not answer: {problem}", where=url)


def _reason(messages: list[str]) -> str:
    """The exception's own line out of Serve's messages, which carry whole stack traces."""
    lines = [line.strip() for message in messages for line in message.splitlines() if line.strip()]
    faults = [line for line in lines if re.match(r"[\w.]+(Error|Exception): ", line)]
    line = (faults or lines or ["no reason was given"])[-1]
    return line.partition(": ")[2][:300] if faults else line[:300]
