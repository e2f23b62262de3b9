"""Starting or joining Ray, with the settings that must stand before its first process starts."""

from __future__ import annotations

import logging
import os
import socket
import sys
from pathlib import Path
from typing import Any

from equipoise import hardware
from equipoise.errors import ServiceError
from equipoise.observability.logging import quiet_libraries

MEASURED_SLOT = "measured_slot"
"""Ray resource of which each machine has one: who holds it times alone."""

HEAD_SLOT = "node:__internal_head__"
"""Ray resource that the head alone has: what takes a little of it runs there."""

_OBJECT_STORE_BYTES = 512 * 2**20
_RAY_FAULTS = (ConnectionError, RuntimeError, OSError, ValueError)
"""What Ray raises where it does not start or does not answer."""

# Serve's front is HAProxy with direct ingress: 15 to 20 times the requests of the Python proxy.
# The rest keeps Ray quiet, on loopback, and lets Ctrl-C reach us instead of Tune.
_ENVIRONMENT = {
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    "RAY_AUTH_MODE": "disabled",
    "RAY_TRAIN_V2_ENABLED": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_metrics_report_interval_ms": "1000",
    # Ray runs workers at niceness 15, which would let anything else on the machine slow a timing.
    "RAY_worker_niceness": "0",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # Tune's newer output prints a table to standard output whatever the verbosity.
    "RAY_AIR_NEW_OUTPUT": "0",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "DS_ACCELERATOR": "cpu",
}


def prepare_environment() -> None:
    """Set what every Ray process inherits; call before Ray is imported. User's own values win."""
    defaults = dict(_ENVIRONMENT)
    if hardware.describe_hardware()["gpus"]:
        del defaults["DS_ACCELERATOR"]
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
    os.environ.setdefault("TORCH_EXTENSIONS_DIR", str(Path(sys.prefix) / "torch_extensions"))
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    roots = [path for path in sys.path if path.endswith(("platform", "serving"))]
    # Workers import what the driver imports, also from a checkout that is not installed.
    os.environ["PYTHONPATH"] = os.pathsep.join(p for p in dict.fromkeys([*roots, *paths]) if p)
    # A system's ninja of another version would compile anew what that of the environment compiled at install.
    own = str(Path(sys.executable).parent)
    places = os.environ.get("PATH", os.defpath).split(os.pathsep)
    os.environ["PATH"] = os.pathsep.join(dict.fromkeys([own, *places]))


def start_ray(metrics_port: int | None = None) -> dict[str, Any]:
    """Join the cluster that RAY_ADDRESS names, or start an embedded one on loopback.

    Returns:
        `address`, `metrics_url` (of the head, where a cluster was joined), `embedded`.

    Raises:
        ServiceError: Ray does not start or the cluster does not answer.
    """
    prepare_environment()
    import ray

    _quiet_ray()
    address = os.environ.get("RAY_ADDRESS")
    try:
        if address:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
            return {"address": address, "metrics_url": _head_metrics_url(), "embedded": False}
        port = metrics_port or free_port()
        context: Any = ray.init(
            address="local",
            num_cpus=len(hardware.usable_cores()),
            resources={MEASURED_SLOT: 1},
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            object_store_memory=_OBJECT_STORE_BYTES,
            _node_ip_address="127.0.0.1",
            _metrics_export_port=port,
        )
    except Exception as error:
        # On a machine that is too busy for its node to come up in time, Ray raises a bare Exception.
        if type(error) is not Exception and not isinstance(error, _RAY_FAULTS):
            raise
        raise ServiceError(
            f"Ray does not start: {error}", where=address or "local Ray", remedy="see the log file"
        ) from error
    return {
        "address": context.address_info["address"],
        "metrics_url": f"http://127.0.0.1:{port}/metrics",
        "embedded": True,
    }


def is_joined() -> bool:
    """Whether Ray is a cluster that was there before, and not one of this process's own."""
    return bool(os.environ.get("RAY_ADDRESS"))


def head_cores() -> int:
    """CPUs that tasks may take on the head; 0 where it is kept free for Ray's own processes."""
    return int(_head_node()["Resources"].get("CPU", 0))


def _head_metrics_url() -> str:
    node = _head_node()
    return f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"


def _head_node() -> dict[str, Any]:
    import ray

    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    [head] = [node for node in nodes if node["Alive"] and HEAD_SLOT in node["Resources"]]
    return head


def whole_node_cores() -> int:
    """Cores of a task that has a machine for itself: this one's, or as many as the largest node offers.

    On a cluster the driver's machine may be larger than any worker: a task of its size would wait for ever.
    """
    import ray

    nodes = ray.nodes()  # type: ignore[no-untyped-call]
    offered = [int(node["Resources"].get("CPU", 0)) for node in nodes if node["Alive"]]
    here = len(hardware.usable_cores())
    return max(1, min(here, max(offered, default=here)))


def _quiet_ray() -> None:
    """Ray sets up handlers of its own at import; what they would print belongs in the log file."""

    quiet_libraries()


def stop_ray() -> None:
    """Leave the cluster; an embedded one ends."""
    import ray

    ray.shutdown()


def free_port() -> int:
    """A TCP port on loopback that nothing listens on at the moment."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
