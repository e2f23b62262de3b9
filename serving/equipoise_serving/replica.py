"""One copy of the model: opens the bundle on its own cores, warms up, batches, meters."""

from __future__ import annotations

import logging
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from ray import serve

from equipoise import hardware
from equipoise.bundle import Bundle, open_bundle
from equipoise.bundle_fetch import fetch_bundle
from equipoise.config.serving import ServingConfig
from equipoise.engines import Predictor, open_engine
from equipoise.engines.generation import open_generation_engine
from equipoise.errors import DataError
from equipoise.tasks.text_generation import TextGeneration
from equipoise_serving.access_log import AccessLog
from equipoise_serving.api_keys import ApiKeys
from equipoise_serving.autoscaling import ARRIVALS
from equipoise_serving.batching import Answer, Answered, Batcher, count_one, count_text_tokens
from equipoise_serving.card import ModelCard
from equipoise_serving.errors import RequestError, bad_request
from equipoise_serving.gateway import Gateway
from equipoise_serving.metering import Meter
from equipoise_serving.node_metrics import NodeMetrics, node_metrics_url
from equipoise_serving.replica_ledger import ReplicaClock, ReplicaLedger
from equipoise_serving.text_writer import TextWriter
from equipoise_serving.writable import check_writes

MAX_WAITING_ROWS = 4096
"""Rows that may wait in a replica; what comes on top is answered 429 at once."""
_WARM_UP_TOKENS = (4, 32, 128)

_log = logging.getLogger("ray.serve")


class Replica:
    """Serves one bundle on one engine thread, on cores of its own.

    Args:
        bundle_folder: path or URI of a bundle; fetched where it is a URI, every checksum verified.
        model_name: name in paths, answers and metrics.
        serving: cores, batches, limits, keys, logs.
        usd_per_core_second: price of a core; None where there is none.
        ledger: where this replica meters itself; None meters nothing.

    Raises:
        BundleError: the bundle or its model cannot be loaded.
        ConfigError: the key file cannot be read.
    """

    def __init__(
        self,
        bundle_folder: str,
        model_name: str,
        serving: ServingConfig,
        usd_per_core_second: float | None = None,
        ledger: ReplicaLedger | None = None,
    ) -> None:
        bundle = open_bundle(fetch_bundle(bundle_folder))
        manifest = bundle.manifest
        rank = serve.get_replica_context().rank
        if serving.pin_cores and not hardware.has_cpu_quota():
            # Before the engine starts threads of its own, which stay on the cores that they find.
            local_rank = rank.local_rank if rank else 0
            hardware.pin_to(cores_of(local_rank, serving.cores_per_replica, hardware.usable_cores()))
        task = bundle.load_task()
        self._meter = Meter(model_name)
        self._arrivals = ArrivalRate(time.monotonic())
        self._clock = (
            ReplicaClock(ledger, model_name, serving.cores_per_replica, lambda: self._meter.answered)
            if ledger
            else None
        )
        writer = None
        if isinstance(task, TextGeneration):
            writer = open_writer(bundle, task, model_name, serving, self._meter, usd_per_core_second)
        else:
            engine = open_engine(
                manifest.engine, bundle.model_folder, manifest.precision, threads=serving.cores_per_replica
            )
            self._predictor = Predictor(task, engine)
            self._batcher = Batcher(
                self._run_batch,
                partial(count_text_tokens, max_tokens=int(manifest.task.get("max_length", 512)))
                if task.ragged
                else count_one,
                max_rows=serving.max_batch_size,
                max_tokens=serving.max_batch_tokens,
                max_wait_s=serving.max_wait_ms / 1000,
                max_waiting_rows=MAX_WAITING_ROWS,
                thread=ThreadPoolExecutor(max_workers=1, thread_name_prefix="engine"),
                observe=self._meter.add_batch,
            )
        metrics_url = node_metrics_url()
        card = ModelCard(
            name=model_name,
            task=str(manifest.task.get("name", "")),
            engine=manifest.engine,
            precision=manifest.precision,
            # A tagger answers with a sequence of its labels.
            labels=() if task.layout == "words" else tuple(task.labels),
            max_body_bytes=serving.max_body_bytes,
            max_inputs=serving.max_inputs,
            needs_key=serving.api_keys is not None,
            usd_per_core_second=usd_per_core_second,
        )
        self._gateway = Gateway(
            card,
            None if writer else self.predict,
            self._meter.count_request,
            timeout_s=serving.timeout_s,
            keys=ApiKeys(Path(serving.api_keys)) if serving.api_keys else None,
            access_log=AccessLog(Path(serving.access_log)) if serving.access_log else None,
            read_metrics=NodeMetrics(metrics_url).read if metrics_url else None,
            writer=writer,
        )
        if writer is None:
            warm_up(self._predictor, serving.max_batch_size, serving.max_batch_tokens)

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """What the autoscaling policy goes by; Serve asks once a second."""
        return {ARRIVALS: self._arrivals.rate(time.monotonic())}

    def __serve_build_asgi_app__(self) -> Gateway:
        return self._gateway

    def __del__(self) -> None:
        """Put the last line of the ledger; Serve calls this when it stops a replica in order."""
        clock = getattr(self, "_clock", None)
        if clock is not None:
            clock.stop()

    async def predict(self, texts: list[str]) -> Answered:
        """One answer a text, in order, each text in whichever batch it fits in.

        Raises:
            RequestError: 429 `overloaded`, or 500 `engine_failed`.
        """
        self._arrivals.rows += len(texts)
        try:
            values = [self._predictor.task.from_text(text) for text in texts]
        except DataError as error:
            raise bad_request(str(error), "invalid_input") from error
        try:
            return await self._batcher.submit(values)
        except RequestError:
            raise
        except Exception as error:
            # Engines raise types of their own; whichever it is, the client is told no more than "failed".
            _log.exception("a batch failed")
            raise RequestError(500, "engine_failed", "the model failed on this batch") from error

    def _run_batch(self, texts: list[Any]) -> tuple[list[Answer], float]:
        start = time.perf_counter()
        answers = self._predictor.predict(texts)
        return answers, time.perf_counter() - start


def open_writer(
    bundle: Bundle,
    task: TextGeneration,
    model_name: str,
    serving: ServingConfig,
    meter: Meter,
    usd_per_core_second: float | None,
) -> TextWriter:
    """What answers for a language model.

    Raises:
        BundleError: the bundle's engine cannot write, or its model cannot be loaded.
    """
    manifest = bundle.manifest
    check_writes(manifest, serving, str(bundle.folder))
    engine = open_generation_engine(
        manifest.engine,
        bundle.model_folder,
        manifest.precision,
        serving.cores_per_replica,
        max_sequences=serving.max_batch_size,
        max_cached_tokens=serving.max_cached_tokens,
        observe=meter.add_batch,
    )
    return TextWriter(
        model_name,
        task,
        engine,
        stop_ids=engine.stop_ids(task.end_id),
        max_new_tokens=serving.max_new_tokens,
        max_choices=serving.max_batch_size,
        count_tokens=meter.add_tokens,
        usd_per_core_second=usd_per_core_second,
    )


class ArrivalRate:
    """Rows a second that came since it was last asked, refused ones among them."""

    def __init__(self, now: float) -> None:
        self.rows = 0
        self._since = now

    def rate(self, now: float) -> float:
        """Rows a second; starts anew."""
        found = self.rows / max(now - self._since, 1e-3)
        self.rows, self._since = 0, now
        return found


def cores_of(local_rank: int, count: int, usable: list[int]) -> list[int]:
    """The core group of a replica; groups are dealt out in turn where there are more replicas."""
    groups = max(1, len(usable) // count)
    first = (local_rank % groups) * count
    return usable[first : first + count]


def warm_up(predictor: Predictor, batch_size: int, batch_tokens: int) -> None:
    """Run batches of several lengths, alone and in numbers, so that no client waits for allocations."""
    if not predictor.task.ragged:
        for rows in {1, batch_size}:
            predictor.predict(predictor.task.examples()[:1] * rows)
        return
    for tokens in _WARM_UP_TOKENS:
        for rows in {1, max(1, min(batch_size, batch_tokens // tokens))}:
            predictor.predict(["warm " * tokens] * rows)
