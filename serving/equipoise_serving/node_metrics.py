"""The `/metrics` page: Equipoise's own metrics of every replica on this node, off Ray's page."""

from __future__ import annotations

import asyncio
import urllib.request

import ray

from equipoise_serving.errors import RequestError

_TIMEOUT_S = 5.0
_PREFIX = "ray_equipoise_"
_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def node_metrics_url() -> str:
    """Ray's metrics page on the node that this runs on; empty where it has none."""
    here = ray.get_runtime_context().get_node_id()
    for node in ray.nodes():  # type: ignore[no-untyped-call]
        if node["NodeID"] == here and node.get("MetricsExportPort"):
            return f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    return ""


class NodeMetrics:
    """Reads the node's page when it is asked.

    Args:
        url: Ray's metrics page.
    """

    def __init__(self, url: str) -> None:
        self._url = url

    async def read(self) -> str:
        """The page without Ray's prefix and without Ray's own metrics.

        Raises:
            RequestError: 503 `metrics_unavailable`.
        """
        try:
            page = await asyncio.to_thread(self._fetch)
        except (OSError, ValueError) as error:
            raise RequestError(
                503, "metrics_unavailable", "Ray's metrics page does not answer", ((b"retry-after", b"1"),)
            ) from error
        return own_metrics(page)

    def _fetch(self) -> str:
        with _direct.open(self._url, timeout=_TIMEOUT_S) as response:
            return str(response.read().decode("utf-8"))


def own_metrics(page: str) -> str:
    """Lines of metrics that are Equipoise's, with the names that the exporter gives them."""
    lines = []
    for line in page.splitlines():
        words = line.split(" ", 3)
        if line.startswith(_PREFIX):
            lines.append(line.removeprefix("ray_"))
        elif line.startswith("# ") and len(words) > 2 and words[2].startswith(_PREFIX):
            lines.append(line.replace(f" {words[2]}", f" {words[2].removeprefix('ray_')}", 1))
    return "".join(f"{line}\n" for line in lines)
