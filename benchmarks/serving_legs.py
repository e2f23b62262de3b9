"""What the serving benchmark serves, each in a process of its own: Serve reads its flags when it starts.

python -m benchmarks.serving_legs NAME BUNDLE TEACHER REPLICAS

Prints one line of JSON when it answers, and serves until its standard input ends.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

MAX_BATCH = 32
"""Rows of a batch, where batches are tuned by hand."""


def main() -> None:
    """Serve one leg."""
    name, bundle, teacher, replicas = sys.argv[1:5]
    if name in ("tutorial", "tuned", "defaults"):
        # Serve as it comes: the Python proxy, none of the flags that Equipoise sets.
        os.environ |= {"RAY_SERVE_ENABLE_HA_PROXY": "0", "RAY_SERVE_THROUGHPUT_OPTIMIZED": "0"}
    from equipoise.ray_runtime import free_port, start_ray, stop_ray

    started = start_ray()
    port = free_port()
    SERVE[name](port, int(replicas), bundle, teacher)
    print(json.dumps({"port": port, "metrics_url": started["metrics_url"]}), flush=True)
    sys.stdin.read()
    stop_ray()


def open_pipeline(teacher: str, bundle: str) -> Any:
    """A transformers pipeline of the fp32 teacher, which reads as much of a text as the bundle does."""
    from transformers import PreTrainedTokenizerFast, pipeline

    from equipoise.bundle import open_bundle

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(Path(bundle) / "tokenizer.json"),
        pad_token="[PAD]",  # noqa: S106
        model_max_length=int(open_bundle(bundle).manifest.task["max_length"]),
    )
    return pipeline("text-classification", model=teacher, tokenizer=tokenizer, device="cpu")


def serve_tutorial(port: int, replicas: int, bundle: str, teacher: str) -> None:
    """The usual tutorial: a transformers pipeline of the fp32 teacher, one request at a time."""
    from ray import serve

    class Classifier:
        def __init__(self) -> None:
            self._pipeline = open_pipeline(teacher, bundle)

        async def __call__(self, request: Any) -> dict[str, Any]:
            answer: dict[str, Any] = self._pipeline((await request.json())["text"], truncation=True)[0]
            return answer

    serve.start(http_options={"host": "127.0.0.1", "port": port})
    serve.run(serve.deployment(num_replicas=replicas)(Classifier).bind())


def serve_tuned(port: int, replicas: int, bundle: str, teacher: str) -> None:
    """The same with what Serve's documentation advises: a replica a core, one thread each, batches."""
    from ray import serve

    class Classifier:
        def __init__(self) -> None:
            import torch

            torch.set_num_threads(1)
            self._pipeline = open_pipeline(teacher, bundle)

        @serve.batch(max_batch_size=MAX_BATCH, batch_wait_timeout_s=0.002)
        async def predict(self, texts: list[str]) -> list[dict[str, Any]]:
            found: list[dict[str, Any]] = self._pipeline(texts, truncation=True, batch_size=len(texts))
            return found

        async def __call__(self, request: Any) -> dict[str, Any]:
            answer: dict[str, Any] = await self.predict((await request.json())["text"])
            return answer

    serve.start(http_options={"host": "127.0.0.1", "port": port})
    serve.run(serve.deployment(num_replicas=replicas, max_ongoing_requests=100)(Classifier).bind())


def serve_defaults(port: int, replicas: int, bundle: str, teacher: str) -> None:
    """The bundle behind Serve's own batching and its own proxy."""
    from ray import serve

    class Classifier:
        def __init__(self, folder: str) -> None:
            from equipoise.bundle import open_bundle
            from equipoise.engines import Predictor, open_engine

            held = open_bundle(folder)
            engine = open_engine(held.manifest.engine, held.model_folder, held.manifest.precision, threads=1)
            self._predictor = Predictor(held.load_task(), engine)

        @serve.batch(max_batch_size=MAX_BATCH, batch_wait_timeout_s=0.002)
        async def predict(self, texts: list[str]) -> list[dict[str, Any]]:
            return self._predictor.predict(texts)

        async def __call__(self, request: Any) -> dict[str, Any]:
            answer: dict[str, Any] = await self.predict((await request.json())["text"])
            return answer

    serve.start(http_options={"host": "127.0.0.1", "port": port})
    serve.run(serve.deployment(num_replicas=replicas, max_ongoing_requests=100)(Classifier).bind(bundle))


def serve_echo(port: int, replicas: int, bundle: str, teacher: str) -> None:
    """A trivial answer of the usual size behind Equipoise's own front."""
    from ray import serve

    from equipoise.config.serving import ServingConfig
    from equipoise_serving.front import start_front
    from equipoise_serving.ingress import IMPORT_PATH

    start_front(ServingConfig(port=port))
    environment = {"env_vars": {"RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": IMPORT_PATH}}
    deployment = serve.deployment(
        num_replicas=replicas, max_ongoing_requests=4096, ray_actor_options={"runtime_env": environment}
    )
    serve.run(deployment(serve.ingress()(Echo)).bind())


class Echo:
    """Reads the body and answers with a constant."""

    def __serve_build_asgi_app__(self) -> Any:
        return answer_constant


async def answer_constant(scope: Any, receive: Any, send: Any) -> None:
    """One request, or Serve's start and end."""
    if scope["type"] == "lifespan":
        while (message := await receive())["type"] != "lifespan.shutdown":
            await send({"type": f"{message['type']}.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    while (await receive()).get("more_body"):
        pass
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(ECHO)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": ECHO})


ECHO = json.dumps(
    {"model": "echo", "predictions": [{"label": "a", "score": 0.9, "scores": dict.fromkeys("abcdefgh", 0.1)}]}
).encode()


def serve_equipoise(port: int, replicas: int, bundle: str, teacher: str) -> None:
    """What `equipoise serve` does."""
    from equipoise.config.serving import ServingConfig
    from equipoise_serving.endpoint import deploy

    deploy(
        Path(bundle),
        ServingConfig(port=port, replicas=replicas),
        model_name="bundle",
        usd_per_core_second=1e-5,
    )


SERVE = {
    "tutorial": serve_tutorial,
    "tuned": serve_tuned,
    "defaults": serve_defaults,
    "echo": serve_echo,
    "equipoise": serve_equipoise,
}


if __name__ == "__main__":
    main()
