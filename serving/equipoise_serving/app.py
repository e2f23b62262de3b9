"""The application graph that Ray Serve deploys."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from equipoise.bundle_fetch import find_bundle
from equipoise.config.load import validate_config
from equipoise.config.section import Section
from equipoise.config.serving import ServingConfig

if TYPE_CHECKING:
    from ray.serve import Application

MAX_ONGOING_REQUESTS = 4096
"""As many as the front keeps connections; what may wait is bounded, in rows, by the replica itself."""


class ApplicationArgs(Section):
    """`args` of an application in a Serve config file."""

    bundle: str = Field("", description="Bundle or run folder, a path or URI; without one, it says so.")
    model_name: str | None = Field(
        None, description="Name in paths, answers, metrics; default: the bundle's."
    )
    num_cpus: float | None = Field(
        None, gt=0, description="Cores that Ray reserves for each replica; default: cores_per_replica."
    )
    serving: ServingConfig = ServingConfig()


def build(args: dict[str, Any]) -> Application:
    """The application of a Serve config file, as a RayService names it.

        import_path: equipoise_serving.app:build
        args: {bundle: "s3://models/demo/bundle", serving: {replicas: 4}}

    Args:
        args: the keys of `ApplicationArgs`.

    Raises:
        ConfigError: a key or value is wrong.
        BundleError: a bundle is named, and there is none.
    """
    given = validate_config(ApplicationArgs, args, where="args")
    if not given.bundle:
        return _waiting_app()
    folder, manifest = find_bundle(given.bundle)
    return build_app(
        folder, given.serving, model_name=given.model_name or manifest.name, num_cpus=given.num_cpus
    )


def _waiting_app() -> Application:
    from ray import serve

    from equipoise_serving.waiting import Waiting

    deploy = serve.deployment(name="Waiting", ray_actor_options={"num_cpus": 0})
    application: Application = deploy(serve.ingress()(Waiting)).bind()
    return application


def build_app(
    bundle_folder: str,
    serving: ServingConfig,
    *,
    model_name: str,
    num_cpus: float | None = None,
    usd_per_core_second: float | None = None,
) -> Application:
    """An application of `serving.replicas` replicas of one bundle.

    Args:
        bundle_folder: absolute path or URI of the bundle, readable on every node.
        serving: replicas, batching, limits.
        model_name: name in paths, answers and metrics.
        num_cpus: cores that Ray reserves for each replica; default: those that it is pinned to.
        usd_per_core_second: price of a core, for the dollars that each answer states.
    """
    # Serve reads its flags from the environment when it is imported: not before Ray was started.
    from ray import serve

    from equipoise_serving import ingress
    from equipoise_serving.replica import Replica

    # A bare ASGI application is the leanest ingress: the replica's own server calls it directly.
    deploy = serve.deployment(
        name="Replica",
        num_replicas=serving.replicas,
        max_ongoing_requests=MAX_ONGOING_REQUESTS,
        ray_actor_options={
            "num_cpus": serving.cores_per_replica if num_cpus is None else num_cpus,
            "runtime_env": {"env_vars": {"RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": ingress.IMPORT_PATH}},
        },
        logging_config={"log_level": "WARNING", "enable_access_log": False},
    )
    application: Application = deploy(serve.ingress()(Replica)).bind(
        bundle_folder, model_name, serving, usd_per_core_second
    )
    return application
