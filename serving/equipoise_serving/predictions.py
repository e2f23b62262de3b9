"""Predictions over HTTP, in both protocols: bodies in, labels, milliseconds and dollars out."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from equipoise_serving.batching import Answered
from equipoise_serving.card import ModelCard
from equipoise_serving.http import Exchange, Headers, Reply, json_reply
from equipoise_serving.inference_protocol import parse_infer, render_infer
from equipoise_serving.plain import parse_predict, render_predict

Predict = Callable[[list[str]], Awaitable[Answered]]
Handler = Callable[[bytes, Exchange], Awaitable[Reply]]


class Predictions:
    """Answers `/v1/predict` and the Open Inference Protocol's `infer`.

    Args:
        card: the model, its limits and its price.
        predict: one answer a text, in order; may raise RequestError.
    """

    def __init__(self, card: ModelCard, predict: Predict) -> None:
        self._card, self._predict = card, predict

    def handlers(self) -> dict[str, Handler]:
        """What answers each path."""
        return {"/v1/predict": self.plain, f"/v2/models/{self._card.name}/infer": self.infer}

    async def plain(self, body: bytes, exchange: Exchange) -> Reply:
        """The answer to `{"inputs": …}`."""
        texts = parse_predict(body, self._card.max_inputs)
        exchange.rows = len(texts)
        answered = await self._predict(texts)
        return json_reply(render_predict(self._card.name, answered.answers), headers=self._cost(answered))

    async def infer(self, body: bytes, exchange: Exchange) -> Reply:
        """The answer to a tensor of texts."""
        request = parse_infer(body, self._card.max_inputs)
        exchange.rows = len(request.texts)
        answered = await self._predict(request.texts)
        return json_reply(
            render_infer(self._card.name, request, answered.answers), headers=self._cost(answered)
        )

    def _cost(self, answered: Answered) -> Headers:
        """Milliseconds in the queue and in the engine, and dollars where there is a price."""
        timing = f"queue;dur={answered.queued_s * 1000:.2f}, engine;dur={answered.busy_s * 1000:.3f}"
        headers: Headers = ((b"server-timing", timing.encode()),)
        if self._card.usd_per_core_second is None:
            return headers
        usd = answered.busy_s * self._card.usd_per_core_second
        return (*headers, (b"x-equipoise-cost-usd", f"{usd:.4g}".encode()))
