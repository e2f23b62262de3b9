"""Kubernetes objects as pure functions from config to dict."""

from equipoise.cluster.manifests.ray_cluster import ray_cluster
from equipoise.cluster.manifests.ray_job import ray_job, run_config_map
from equipoise.cluster.manifests.ray_service import ray_service

__all__ = ["ray_cluster", "ray_job", "ray_service", "run_config_map"]
