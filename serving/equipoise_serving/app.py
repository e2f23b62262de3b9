"""The application graph that Ray Serve deploys."""

from __future__ import annotations

from typing import TYPE_CHECKING

from equipoise.config.serving import ServingConfig

if TYPE_CHECKING:
    from ray.serve import Application

MAX_ONGOING_REQUESTS = 4096
"""As many as the front keeps connections; what may wait is bounded, in rows, by the replica itself."""


def build_app(
    bundle_folder: str, serving: ServingConfig, *, model_name: str, num_cpus: float = 1.0
) -> Application:
    """An application of `serving.replicas` replicas of one bundle.

    Args:
        bundle_folder: absolute path of the bundle, readable on every node.
        serving: replicas, batching, limits.
        model_name: name in paths, answers and metrics.
        num_cpus: cores that Ray reserves for each replica.
    """
    # Serve reads its flags from the environment when it is imported: not before Ray was started.
    from ray import serve

    from equipoise_serving.replica import Replica

    # A bare ASGI application is the leanest ingress: the replica's own server calls it directly.
    deploy = serve.deployment(
        name="Replica",
        num_replicas=serving.replicas,
        max_ongoing_requests=MAX_ONGOING_REQUESTS,
        ray_actor_options={"num_cpus": num_cpus},
        logging_config={"log_level": "WARNING", "enable_access_log": False},
    )
    application: Application = deploy(serve.ingress()(Replica)).bind(bundle_folder, model_name, serving)
    return application
