"""One copy of the model: opens the bundle, warms up, batches what is waiting, meters."""

from __future__ import annotations

import asyncio
import logging
import time
from concurrent.futures import ThreadPoolExecutor

from ray import serve

from equipoise.bundle import open_bundle
from equipoise.bundle_fetch import fetch_bundle
from equipoise.config.serving import ServingConfig
from equipoise.engines import Predictor, open_engine
from equipoise_serving.errors import RequestError
from equipoise_serving.gateway import Gateway
from equipoise_serving.metering import Meter
from equipoise_serving.plain import Prediction

MAX_WAITING_ROWS = 4096
"""Rows that may wait in a replica; what comes on top is answered 429 at once."""

_log = logging.getLogger("ray.serve")


class Replica:
    """Serves one bundle on one engine thread.

    Args:
        bundle_folder: path or URI of a bundle; fetched where it is a URI, every checksum verified.
        model_name: name in paths, answers and metrics.
        serving: batch size, batch wait, body limit and timeout.

    Raises:
        BundleError: the bundle or its model cannot be loaded.
    """

    def __init__(self, bundle_folder: str, model_name: str, serving: ServingConfig) -> None:
        bundle = open_bundle(fetch_bundle(bundle_folder))
        manifest = bundle.manifest
        engine = open_engine(manifest.engine, bundle.model_folder, manifest.precision, threads=1)
        self._predictor = Predictor(bundle.load_task(), engine)
        self._meter = Meter(model_name)
        # One thread, because an engine holds one request; off the loop, so that bodies are read meanwhile.
        self._engine_thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="engine")
        self._waiting = 0
        self._batched = serve.batch(
            max_batch_size=serving.max_batch_size,
            batch_wait_timeout_s=serving.batch_wait_ms / 1000,
        )(self._run_batch)
        self._gateway = Gateway(
            model_name,
            manifest.engine,
            self.predict,
            self._meter.count_request,
            max_body_bytes=serving.max_body_bytes,
            timeout_s=serving.timeout_s,
        )
        warm_up(self._predictor, serving.max_batch_size)

    def __serve_build_asgi_app__(self) -> Gateway:
        return self._gateway

    async def predict(self, texts: list[str]) -> list[Prediction]:
        """One prediction a text, in order, each text in whichever batch comes next.

        Raises:
            RequestError: 429 `overloaded`, or 500 `engine_failed`.
        """
        if self._waiting + len(texts) > MAX_WAITING_ROWS:
            raise RequestError(429, "overloaded", "too many rows are waiting", ((b"retry-after", b"1"),))
        self._waiting += len(texts)
        try:
            if len(texts) == 1:
                return [await self._batched(texts[0])]
            return await asyncio.gather(*(self._batched(text) for text in texts))
        finally:
            self._waiting -= len(texts)

    async def _run_batch(self, texts: list[str]) -> list[Prediction]:
        loop = asyncio.get_running_loop()
        # Engines raise types of their own; whichever it is, the client is told no more than "failed".
        outcome: tuple[list[Prediction], float] | BaseException
        [outcome] = await asyncio.gather(
            loop.run_in_executor(self._engine_thread, self._timed, texts), return_exceptions=True
        )
        if isinstance(outcome, BaseException):
            _log.error("a batch of %d failed", len(texts), exc_info=outcome)
            raise RequestError(500, "engine_failed", "the model failed on this batch") from outcome
        predictions, seconds = outcome
        self._meter.add_busy(seconds)
        return predictions

    def _timed(self, texts: list[str]) -> tuple[list[Prediction], float]:
        start = time.perf_counter()
        predictions = self._predictor.predict(texts)
        return predictions, time.perf_counter() - start


def warm_up(predictor: Predictor, batch_size: int) -> None:
    """Run short and long batches of 1 and of `batch_size`, so that no client waits for allocations."""
    for size in {1, batch_size}:
        for words in (4, 32):
            predictor.predict(["warm " * words] * size)
