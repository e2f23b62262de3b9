"""Serve's HTTP front: HAProxy on the host and port of the config."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import socket

from equipoise import hardware
from equipoise.config.serving import ServingConfig
from equipoise.errors import ServiceError
from equipoise.ray_runtime import free_port

_ADMIN_PORTS = {"RAY_SERVE_HAPROXY_METRICS_PORT": 9101, "RAY_SERVE_HAPROXY_STATS_PORT": 8404}
_MARGIN_S = 5
"""HAProxy waits longer than a replica takes to say 408 by itself."""
_ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104


def start_front(serving: ServingConfig) -> str:
    """Start Serve with its front on the config's host and port, or join the Serve that has it there.

    A front on another port with nothing behind it is shut down first: who starts one on a cluster and has not
    deployed yet loses it to whoever starts another at that moment.

    Returns:
        The base URL, for clients on this machine.

    Raises:
        ServiceError: the port is taken, Serve runs applications behind another front, or it does not start.
    """
    import ray
    from ray import serve
    from ray.serve.config import ProxyLocation

    # Serve tells of every connection to itself on standard error.
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    where = f"{serving.host}:{serving.port}"
    address = (_ANY_ADDRESS.get(serving.host, serving.host), serving.port)
    faults = (RuntimeError, TimeoutError, ray.exceptions.RayError)
    status = serve.status()
    is_running = bool(status.proxies)
    if is_running and not _listens(address):
        if status.applications:
            raise ServiceError(
                f"Serve already runs on another port, with {', '.join(status.applications)}",
                where=where,
                remedy="shut it down first",
            )
        # What an earlier endpoint of a cluster left: its front, with nothing behind it.
        serve.shutdown()  # type: ignore[no-untyped-call]
        is_running = False
    if not is_running:
        _check_port(serving)
    try:
        serve.start(
            proxy_location=ProxyLocation.HeadOnly,
            http_options={"host": serving.host, "port": serving.port},
            controller_options={"runtime_env": {"env_vars": front_environment(serving)}},
        )
    except faults as error:
        if not is_running:
            # On a cluster it would outlive this process, and hold the port against the next try.
            with contextlib.suppress(*faults):
                serve.shutdown()  # type: ignore[no-untyped-call]
        raise ServiceError(f"Serve does not start: {error}", where=where) from error
    host = f"[{address[0]}]" if ":" in address[0] else address[0]
    return f"http://{host}:{serving.port}"


def front_environment(serving: ServingConfig) -> dict[str, str]:
    """What Serve's controller and HAProxy are told; a value of the user's own environment wins.

    A prediction changes nothing, so a request whose replica dies may be sent to another one: before
    an answer began, and after a 503. Idle and half-open connections end after `timeout_s`.
    """
    settings = {
        "RAY_SERVE_HAPROXY_RETRY_ON": "conn-failure empty-response response-timeout 503",
        "RAY_SERVE_HAPROXY_RETRIES": "3",
        "RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S": str(math.ceil(serving.timeout_s) + _MARGIN_S),
        "RAY_SERVE_HAPROXY_TIMEOUT_SERVER_S": str(math.ceil(serving.timeout_s) + _MARGIN_S),
        # More threads than cores only take turns on them.
        "RAY_SERVE_HAPROXY_NBTHREAD": str(min(4, len(hardware.usable_cores()))),
    }
    own = {name: value for name, value in settings.items() if name not in os.environ}
    return {**own, **_admin_ports(), **drain_period(serving)}


def drain_period(serving: ServingConfig) -> dict[str, str]:
    """Environment that shortens a replica's farewell where its only front is on this machine.

    Serve keeps each leaving replica reachable for 30 seconds, for load balancers that learn late;
    the one HAProxy of a loopback front is told at once.
    """
    name = "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S"
    if name in os.environ or not serving.is_loopback:
        return {}
    return {name: "1"}


def _check_port(serving: ServingConfig) -> None:
    family = socket.AF_INET6 if ":" in serving.host else socket.AF_INET
    with socket.socket(family) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((serving.host, serving.port))
        except OSError as error:
            raise ServiceError(
                f"cannot be listened on: {error.strerror or error}",
                where=f"{serving.host}:{serving.port}",
                remedy="choose another serving.host or serving.port",
            ) from error


def _listens(address: tuple[str, int]) -> bool:
    try:
        with socket.create_connection(address, timeout=2):
            return True
    except OSError:
        return False


def _admin_ports() -> dict[str, str]:
    """HAProxy's two admin ports, moved where another Serve on this machine holds the usual ones."""
    return {
        name: str(free_port() if _listens(("127.0.0.1", usual)) else usual)
        for name, usual in _ADMIN_PORTS.items()
        if name not in os.environ
    }
