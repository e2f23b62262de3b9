"""What a served model's use is billed on: requests and busy seconds, as Ray metrics.

Ray exports them on its metrics port as `ray_equipoise_requests_total` and
`ray_equipoise_busy_seconds_total`, with its own tags for application, deployment and replica.
"""

from __future__ import annotations

from ray.serve.metrics import Counter


class Meter:
    """Counters of one replica; works only inside one.

    Args:
        model_name: value of the `model` tag.
    """

    def __init__(self, model_name: str) -> None:
        self._model_name = model_name
        self._requests = Counter(
            "equipoise_requests",
            description="Inference requests, by HTTP status.",
            tag_keys=("model", "status"),  # type: ignore[arg-type]  # Ray's annotation says one key
        )
        self._busy_seconds = Counter(
            "equipoise_busy_seconds",
            description="Seconds that tokenizer and engine were busy.",
            tag_keys=("model",),
        )

    def count_request(self, status: int) -> None:
        """One more inference request answered with this HTTP status."""
        self._requests.inc(1, tags={"model": self._model_name, "status": str(status)})

    def add_busy(self, seconds: float) -> None:
        """Wall seconds that a batch took from text to answer."""
        if seconds > 0:
            self._busy_seconds.inc(seconds, tags={"model": self._model_name})
