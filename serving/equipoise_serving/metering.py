"""What a served model's use is billed on: requests, rows and busy seconds, as Ray metrics.

Ray exports them on its metrics port as `ray_equipoise_requests_total`, `ray_equipoise_rows_total`
and `ray_equipoise_busy_seconds_total`, with its own tags for application, deployment and replica.
"""

from __future__ import annotations

import asyncio
from collections import Counter as Tally

from ray.serve.metrics import Counter

_FLUSH_S = 0.2


class Meter:
    """Counters of one replica; works only inside one, on its event loop.

    Counts are handed to Ray five times a second rather than with each request: a call into Ray's
    registry takes as long as a good part of the request itself.

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
        self._rows = Counter(
            "equipoise_rows", description="Texts that the engine answered.", tag_keys=("model",)
        )
        self._busy_seconds = Counter(
            "equipoise_busy_seconds",
            description="Seconds that tokenizer and engine were busy.",
            tag_keys=("model",),
        )
        self._tokens = Counter(
            "equipoise_tokens",
            description="Tokens of prompts and of answers that were written.",
            tag_keys=("model", "kind"),  # type: ignore[arg-type]  # as above
        )
        self._counted: Tally[int] = Tally()
        self._counted_tokens: Tally[str] = Tally()
        self._answered_rows = 0
        self._busy_s = 0.0
        self._flush_is_due = False
        self.answered = 0
        """Requests answered with a 2xx."""

    def count_request(self, status: int) -> None:
        """One more inference request answered with this HTTP status."""
        self.answered += status // 100 == 2
        self._counted[status] += 1
        self._plan_flush()

    def add_batch(self, rows: int, seconds: float) -> None:
        """Wall seconds that a batch took from text to answer."""
        self._answered_rows += rows
        self._busy_s += seconds
        self._plan_flush()

    def add_tokens(self, prompt: int, completion: int) -> None:
        """Tokens of one answered request."""
        self._counted_tokens.update({"prompt": prompt, "completion": completion})
        self._plan_flush()

    def flush(self) -> None:
        """Hand everything to Ray."""
        self._flush_is_due = False
        for status, count in self._counted.items():
            self._requests.inc(count, tags={"model": self._model_name, "status": str(status)})
        self._counted.clear()
        for kind, count in self._counted_tokens.items():
            if count:
                self._tokens.inc(count, tags={"model": self._model_name, "kind": kind})
        self._counted_tokens.clear()
        if self._answered_rows:
            self._rows.inc(self._answered_rows, tags={"model": self._model_name})
            self._answered_rows = 0
        if self._busy_s > 0:
            self._busy_seconds.inc(self._busy_s, tags={"model": self._model_name})
            self._busy_s = 0.0

    def _plan_flush(self) -> None:
        if not self._flush_is_due:
            self._flush_is_due = True
            asyncio.get_running_loop().call_later(_FLUSH_S, self.flush)
