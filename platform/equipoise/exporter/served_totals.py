"""Requests and busy seconds of the served models, summed over replicas, off Ray's metrics page."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

from equipoise.exporter.client import read_samples

_PREFIX = "ray_equipoise_"
_REQUESTS = "ray_equipoise_requests_total"
_BUSY_SECONDS = "ray_equipoise_busy_seconds_total"


@dataclass(frozen=True)
class ServedTotals:
    """Counts since Ray started."""

    requests: dict[tuple[str, str], float] = field(default_factory=dict)
    """By model and HTTP status."""
    busy_seconds: dict[str, float] = field(default_factory=dict)
    """By model."""

    def successful(self, model: str) -> float:
        """Requests of a model that were answered with a 2xx."""
        return self._successful.get(model, 0.0)

    @cached_property
    def _successful(self) -> dict[str, float]:
        """By model, summed once: a scrape of a thousand models asks a thousand times."""
        found: dict[str, float] = {}
        for (model, status), count in self.requests.items():
            if status.startswith("2"):
                found[model] = found.get(model, 0.0) + count
        return found


def read_served_totals(ray_metrics_url: str) -> ServedTotals:
    """Read Ray's metrics page.

    Raises:
        InputError: the URL is not http or https.
        ServiceError: the page cannot be read within 5 seconds.
    """
    totals = ServedTotals()
    for sample in read_samples(ray_metrics_url, _PREFIX):
        model = sample.labels.get("model", "")
        if sample.name == _REQUESTS:
            key = (model, sample.labels.get("status", ""))
            totals.requests[key] = totals.requests.get(key, 0.0) + sample.value
        elif sample.name == _BUSY_SECONDS:
            totals.busy_seconds[model] = totals.busy_seconds.get(model, 0.0) + sample.value
    return totals
