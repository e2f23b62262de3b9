"""What is looked up with GET: health, metadata, the document, the metrics and the page."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from equipoise import __version__
from equipoise_serving.card import ModelCard
from equipoise_serving.errors import RequestError
from equipoise_serving.http import Reply, json_reply
from equipoise_serving.inference_protocol import model_metadata, server_metadata
from equipoise_serving.openapi import openapi_document
from equipoise_serving.page import page_reply

_OPEN_PATHS = frozenset({"/", "/healthz", "/readyz", "/openapi.json", "/v2/health/live", "/v2/health/ready"})
_PLAIN_TEXT = b"text/plain; version=0.0.4; charset=utf-8"


def open_paths(model_name: str) -> frozenset[str]:
    """Answered without an API key: probes, the document and the page."""
    return _OPEN_PATHS | {f"/v2/models/{model_name}/ready"}


class Lookups:
    """Answers everything that is no inference.

    Args:
        card: the model.
        read_metrics: the page that `/metrics` answers with.
        more: further paths, each with its answer.
    """

    def __init__(
        self,
        card: ModelCard,
        read_metrics: Callable[[], Awaitable[str]] | None,
        more: dict[str, Reply],
    ) -> None:
        self._card = card
        self._read_metrics = read_metrics
        name, ready = card.name, json_reply({"ready": True})
        self._fixed = {
            "/healthz": json_reply({"status": "ok"}),
            "/readyz": json_reply({"status": "ready", "model": name}),
            "/openapi.json": json_reply(openapi_document(card, __version__)),
            "/v2": json_reply(server_metadata(__version__)),
            "/v2/health/live": json_reply({"live": True}),
            "/v2/health/ready": ready,
            f"/v2/models/{name}": json_reply(model_metadata(name, card.engine, infers=not card.writes)),
            f"/v2/models/{name}/ready": ready,
        } | more

    async def answer(self, path: str, method: str) -> Reply:
        """What stands at a path.

        Raises:
            RequestError: 404, 405, or whatever reading the metrics gives.
        """
        reply = self._fixed.get(path)
        is_metrics = path == "/metrics" and self._read_metrics is not None
        if reply is None and path != "/" and not is_metrics:
            if path.startswith("/v2/models/"):
                raise RequestError(404, "model_not_found", "no such model or path here")
            raise RequestError(404, "not_found", "no such path here")
        if method not in ("GET", "HEAD"):
            raise wrong_method(method, "GET, HEAD")
        if reply is not None:
            return reply
        if path == "/":
            return page_reply(self._card)
        assert self._read_metrics is not None  # noqa: S101 - is_metrics
        return Reply(200, (await self._read_metrics()).encode(), (), _PLAIN_TEXT)


def wrong_method(method: str, allowed: str) -> RequestError:
    """A 405 with the methods that are answered."""
    return RequestError(
        405,
        "method_not_allowed",
        f"{method} is not allowed here; use {allowed}",
        ((b"allow", allowed.encode()),),
    )
