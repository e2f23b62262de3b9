"""The application graph that Ray Serve deploys."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from pydantic import Field

from equipoise.bundle_fetch import find_bundle
from equipoise.config.cost import CostConfig
from equipoise.config.load import validate_config
from equipoise.config.section import Section
from equipoise.config.serving import ServingConfig
from equipoise.costs.capacity import ReplicaCapacity, plan_capacity
from equipoise.errors import ConfigError, RunFolderError
from equipoise.ray_runtime import HEAD_SLOT
from equipoise.runs.records import Speed
from equipoise_serving.replica_ledger import ReplicaLedger, open_replica_ledger
from equipoise_serving.writable import check_writes

if TYPE_CHECKING:
    from ray.serve import Application

_log = logging.getLogger("ray.serve")

MAX_ONGOING_REQUESTS = 4096
"""As many as the front keeps connections; what may wait is bounded, in rows, by the replica itself."""


class ApplicationArgs(Section):
    """`args` of an application in a Serve config file."""

    bundle: str = Field("", description="Bundle or run folder, a path or URI; without one, it says so.")
    run: str | None = Field(
        None,
        description="Run folder whose ledger replicas meter themselves in, at its prices; default: that of "
        "the bundle, where it lies in one. Empty meters nothing.",
    )
    model_name: str | None = Field(
        None, description="Name in paths, answers, metrics; default: the bundle's."
    )
    num_cpus: float | None = Field(
        None, gt=0, description="Cores that Ray reserves for each replica; default: cores_per_replica."
    )
    serving: ServingConfig = ServingConfig()
    p99_ms: float | None = Field(
        None, gt=0, description="Latency objective that serving.max_replicas is scaled by."
    )


def build(args: dict[str, Any]) -> Application:
    """The application of a Serve config file, as a RayService names it.

        import_path: equipoise_serving.app:build
        args: {bundle: "s3://models/demo/bundle", serving: {replicas: 4}}

    Args:
        args: the keys of `ApplicationArgs`.

    Raises:
        ConfigError: a key or value is wrong.
        BundleError: a bundle is named, and there is none, or it is a language model that cannot write.
        RunFolderError: a run is named, and there is none.
    """
    given = validate_config(ApplicationArgs, args, where="args")
    if not given.bundle:
        return _waiting_app()
    folder, manifest = find_bundle(given.bundle)
    check_writes(manifest, given.serving, folder)
    ledger = _find_ledger(folder, given.run)
    if ledger is None and given.serving.max_usd_per_hour is not None:
        raise ConfigError(
            "there is no price of a replica to hold it against",
            where="serving.max_usd_per_hour",
            value=given.serving.max_usd_per_hour,
            remedy="name the run whose prices hold (run), or leave it out",
        )
    return build_app(
        folder,
        given.serving,
        model_name=given.model_name or manifest.name,
        num_cpus=given.num_cpus,
        usd_per_core_second=ledger.usd_per_core_second if ledger else None,
        capacity=measured_capacity(manifest.candidate, CostConfig(p99_ms=given.p99_ms)),
        ledger=ledger,
    )


def _find_ledger(bundle: str, run: str | None) -> ReplicaLedger | None:
    """The ledger of the run that was named, or else of the one that the bundle lies in; None without one."""
    if run is not None:
        return open_replica_ledger(run) if run else None
    beside = bundle.removesuffix("/bundle")
    try:
        return None if beside == bundle else open_replica_ledger(beside)
    except (RunFolderError, ConfigError) as error:
        # Nobody asked for it: a bundle that was copied by itself, or priced by a book that is elsewhere.
        _log.warning("replicas are not metered: %s", error)
        return None


def _waiting_app() -> Application:
    from ray import serve

    from equipoise_serving.waiting import Waiting

    # A little of a core: without any it might land on a head that offers none, and that gets no traffic.
    deploy = serve.deployment(name="Waiting", ray_actor_options={"num_cpus": 0.1})
    application: Application = deploy(serve.ingress()(Waiting)).bind()
    return application


def build_app(
    bundle_folder: str,
    serving: ServingConfig,
    *,
    model_name: str,
    num_cpus: float | None = None,
    usd_per_core_second: float | None = None,
    capacity: ReplicaCapacity | None = None,
    ledger: ReplicaLedger | None = None,
    on_head: bool = False,
) -> Application:
    """An application of `serving.replicas` replicas of one bundle.

    Args:
        bundle_folder: absolute path or URI of the bundle, readable on every node.
        serving: replicas, batching, limits.
        model_name: name in paths, answers and metrics.
        num_cpus: cores that Ray reserves for each replica; default: those that it is pinned to.
        usd_per_core_second: price of a core, for the dollars that each answer states.
        capacity: the load curve that the replicas are scaled by, where `serving.max_replicas` is set.
        ledger: where replicas meter themselves; None meters nothing.
        on_head: keep the replicas on the cluster's head, where a loopback front reaches them.

    Raises:
        ConfigError: replicas are to be scaled, and there is no load curve.
    """
    fleet = _fleet(serving, capacity, usd_per_core_second)
    # Serve reads its flags from the environment when it is imported: not before Ray was started.
    from ray import serve

    from equipoise_serving import ingress
    from equipoise_serving.replica import Replica

    # A bare ASGI application is the leanest ingress: the replica's own server calls it directly.
    deploy = serve.deployment(
        name="Replica",
        **fleet,
        max_ongoing_requests=MAX_ONGOING_REQUESTS,
        # A new version starts beside the old one, which serves until its successor is warm.
        max_surge_percent=100,
        # What fails three times fails for good: a damaged model, a library that is missing.
        max_constructor_retry_count=3,
        ray_actor_options={
            "num_cpus": serving.cores_per_replica if num_cpus is None else num_cpus,
            "resources": {HEAD_SLOT: 0.001} if on_head else {},
            "runtime_env": {"env_vars": {"RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": ingress.IMPORT_PATH}},
        },
        logging_config={"log_level": "WARNING", "enable_access_log": False},
    )
    application: Application = deploy(serve.ingress()(Replica)).bind(
        bundle_folder, model_name, serving, usd_per_core_second, ledger
    )
    return application


def _fleet(
    serving: ServingConfig, capacity: ReplicaCapacity | None, usd_per_core_second: float | None
) -> dict[str, Any]:
    """Serve's options for a fixed number of replicas, or for one that follows the traffic."""
    if serving.max_replicas is None:
        return {"num_replicas": serving.replicas}
    if capacity is None:
        raise ConfigError(
            "replicas are scaled by a load curve, and the bundle's candidate has no measured speed",
            where="serving.max_replicas",
            value=serving.max_replicas,
            remedy="leave it out, or serve the bundle of a finished run",
        )
    from equipoise_serving.autoscaling import autoscaling_config

    scaling = autoscaling_config(
        capacity,
        min_replicas=min(serving.replicas, serving.max_replicas),
        max_replicas=serving.max_replicas,
        usd_per_hour=3600 * serving.cores_per_replica * (usd_per_core_second or 0.0),
        max_usd_per_hour=serving.max_usd_per_hour,
    )
    return {"autoscaling_config": scaling}


def measured_capacity(candidate: dict[str, Any], cost: CostConfig) -> ReplicaCapacity | None:
    """The load curve of a bundle's candidate at `cost.p99_ms`; None where its speed was not measured."""
    if "speed" not in candidate:
        return None
    return plan_capacity(Speed.model_validate(candidate["speed"]), cost)
