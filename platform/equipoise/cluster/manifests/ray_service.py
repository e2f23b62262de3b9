"""RayService: a bundle behind Ray Serve, replaced without downtime."""

from __future__ import annotations

from typing import Any

from equipoise.cluster.manifests import pods
from equipoise.cluster.manifests.ray_cluster import API_VERSION, cluster_spec
from equipoise.cluster.manifests.text import to_yaml
from equipoise.cluster.names import object_labels
from equipoise.config.cluster import ClusterConfig
from equipoise.config.serving import ServingConfig

BUILDER = "equipoise_serving.app:build"
SERVE_PORT = 8000

_KEYS_MOUNT, _KEYS_FILE = "/etc/equipoise/keys", "keys.json"

_UNHEALTHY_S = 900


def ray_service(name: str, bundle: str, cluster: ClusterConfig, serving: ServingConfig) -> dict[str, Any]:
    """A RayService; a changed cluster comes up beside the old one and takes over once it is ready.

    Args:
        name: of the service; clients reach it at `NAME-serve-svc:8000`.
        bundle: URI or path of a bundle or of a run folder with one, as every pod sees it.
        cluster: image, size, placement, storage.
        serving: replicas, batching, limits.
    """
    secret = {"secretName": cluster.api_keys_secret, "items": [{"key": _KEYS_FILE, "path": _KEYS_FILE}]}
    keys = pods.Files("api-keys", _KEYS_MOUNT, {"secret": secret})
    spec: dict[str, Any] = {
        "serveConfigV2": serve_config(bundle, serving),
        "upgradeStrategy": {"type": "NewCluster"},
        # Traffic goes where replicas are; a head that runs none would answer from one hop further.
        "excludeHeadPodFromServeSvc": bool(cluster.worker_groups),
        "deploymentUnhealthySecondThreshold": _UNHEALTHY_S,
        "serviceUnhealthySecondThreshold": _UNHEALTHY_S,
        "rayClusterConfig": cluster_spec(name, "service", cluster, keys),
    }
    if cluster.redis_address is not None:
        options: dict[str, Any] = {"backend": "redis", "redisAddress": cluster.redis_address}
        if cluster.redis_secret is not None:
            key = {"name": cluster.redis_secret, "key": "password"}
            options["redisPassword"] = {"valueFrom": {"secretKeyRef": key}}
        spec["rayClusterConfig"]["gcsFaultToleranceOptions"] = options
    return {
        "apiVersion": API_VERSION,
        "kind": "RayService",
        "metadata": {"name": name, "labels": object_labels(name, "service")},
        "spec": spec,
    }


def serve_config(bundle: str, serving: ServingConfig) -> str:
    """`serveConfigV2`: one application of one bundle, as YAML."""
    values = serving.model_dump(mode="json")
    # Within a pod the front listens for the whole pod network: whoever calls needs a key.
    keys = f"{_KEYS_MOUNT}/{_KEYS_FILE}"
    values.update(host="0.0.0.0", port=SERVE_PORT, api_keys=keys, access_log=None)  # noqa: S104
    return to_yaml(
        {
            "proxy_location": "EveryNode",
            "http_options": {"host": "0.0.0.0", "port": SERVE_PORT},  # noqa: S104
            "applications": [
                {
                    "name": "equipoise",
                    "route_prefix": "/",
                    "import_path": BUILDER,
                    "args": {"bundle": bundle, "serving": values},
                }
            ],
        }
    )
