"""What a pod has printed, and commands run in it."""

from __future__ import annotations

import re
from collections.abc import Iterator

from equipoise.cluster.api_faults import explain_transport_error
from equipoise.cluster.kubernetes_api import KubernetesApi
from equipoise.cluster.kubernetes_transport import CONNECT_S, transport_errors
from equipoise.errors import ServiceError

# A log may be silent for long; a connection that broke unnoticed must not be.
_LOG_READ_S = 300.0


def pod_log(api: KubernetesApi, pod: str, since: str = "", *, follow: bool = True) -> Iterator[str]:
    """Lines of a pod's log, each behind its RFC 3339 timestamp.

    Args:
        api: its server and namespace.
        pod: its name.
        since: timestamp of the last line already seen; earlier lines are left out by the second.
        follow: go on as lines come, until the pod ends.

    Raises:
        InputError: it may not be read, or the pod is gone.
        ServiceError: the server does not answer, or the line broke.
    """
    transport = api.transport
    query = {"follow": str(follow).lower(), "timestamps": "true"}
    if since:
        query["sinceTime"] = since
    try:
        response = transport.send("GET", f"{api.path('Pod', pod)}/log", query, read_s=_LOG_READ_S)
    except transport_errors() as error:
        raise explain_transport_error(error, api.where) from error
    try:
        if not 200 <= response.status < 300:
            raise transport.fault(response.status, response.read(), "Pod", pod, api.namespace)
        pending = b""
        for block in response.stream(8192):
            *lines, pending = (pending + block).split(b"\n")
            yield from (line.decode("utf-8", "replace") for line in lines)
        if pending:
            yield pending.decode("utf-8", "replace")
    except transport_errors() as error:
        raise explain_transport_error(error, api.where) from error
    finally:
        response.close()


def run_in_pod(api: KubernetesApi, pod: str, container: str, command: list[str], timeout_s: float) -> str:
    """What a command prints in a running container, as `kubectl exec` would run it.

    Raises:
        InputError: it may not be run, or the pod is gone.
        ServiceError: it failed, or took longer than `timeout_s`.
    """
    import websocket
    from kubernetes import client
    from kubernetes.stream import stream

    # The client's own timeouts begin once it is connected.
    websocket.setdefaulttimeout(CONNECT_S)
    faults: tuple[type[Exception], ...] = (*transport_errors(), websocket.WebSocketException)
    try:
        line = stream(
            client.CoreV1Api(api.transport.client).connect_get_namespaced_pod_exec,
            pod,
            api.namespace,
            container=container,
            command=command,
            stdin=False,
            stdout=True,
            stderr=True,
            tty=False,
            _preload_content=False,
        )
        try:
            line.run_forever(timeout=timeout_s)
            if line.is_open():
                raise ServiceError(f"took more than {timeout_s:.0f} s", where=f"pod {pod}")
            output, errors = line.read_channel(1), line.read_channel(2)
            status = line.returncode
        finally:
            # Its own `close` leaves the socket open where the server closed first.
            line.sock.shutdown()
    except faults as error:
        refused = re.search(r"Handshake status (\d+)", str(error))
        if refused is None:
            raise explain_transport_error(error, api.where) from error
        answer = str(error).encode()
        raise api.transport.fault(int(refused.group(1)), answer, "Pod", pod, api.namespace) from error
    if status != 0:
        said = (errors.strip().splitlines() or ["no reason was given"])[-1]
        raise ServiceError(f"{command[0]} ended with {status}: {said}", where=f"pod {pod}")
    return str(output)
