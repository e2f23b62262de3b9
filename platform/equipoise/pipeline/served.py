"""The test stage: the choice serves the whole test split over HTTP, the teacher a part of it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from equipoise import ray_runtime
from equipoise.bundle import Bundle
from equipoise.config import RunConfig
from equipoise.engines import Predictor, open_engine
from equipoise.errors import ServiceError
from equipoise.exporter.client import read_metric
from equipoise.measurement.quality import find_truth, measure_quality, paired_drop
from equipoise.observability import progress
from equipoise.pipeline.choice import write_candidate_bundle
from equipoise.pipeline.endpoint import running_exporter
from equipoise.pipeline.session import Session
from equipoise.ray_runtime import free_port
from equipoise.runs import Candidate
from equipoise.search.context import TrialContext
from equipoise.tasks import Answers
from equipoise.training.teacher_outputs import teacher_answers
from equipoise_serving.endpoint import check_vacant, deploy, undeploy
from equipoise_serving.load_client import Replay, replay
from equipoise_serving.replica_ledger import ReplicaLedger

_METRICS_WAIT_S = 30.0
_LISTED = 50
_BATCH_ROWS = 32


def read_test(
    session: Session, context: TrialContext, bundle: Bundle, choice: Candidate, teacher: Candidate
) -> list[str]:
    """Read the test split once, for the teacher and the choice; write `test.json`.

    Returns:
        The bundle's own labels for the test rows, in order; none of a family without labels.
    """
    data, config = context.data, session.config
    with session.ledger.meter("evaluation", cores=session.cores, detail="test split"):
        task = context.load_task()
        truth = find_truth(task, data.test.inputs, data.test.labels)
        teacher_test = teacher_answers(context.teacher, task, data.test.inputs, context.teacher / "outputs")
        progress.tell("test split in-process", 0, 1, force=True)
        engine = open_engine(
            bundle.manifest.engine, bundle.model_folder, bundle.manifest.precision, session.cores
        )
        predictor = Predictor(bundle.load_task(), engine)
        answers = predictor.answers(data.test.inputs)
    if not session.run.has("test.json"):
        options: dict[str, Any] = {
            "task": task,
            "rows": len(data.test),
            "resamples": config.measurement.resamples,
            "seed": config.seed,
        }
        figures = {
            "teacher": measure_quality(
                teacher_test, truth, temperature=teacher.quality.temperature, **options
            ),
            "choice": measure_quality(answers, truth, temperature=choice.quality.temperature, **options),
        }
        drop = paired_drop(
            task,
            teacher_test,
            answers,
            truth,
            rows=len(data.test),
            resamples=config.measurement.resamples,
            seed=config.seed,
        )
        record: dict[str, Any] = {
            name: figure.model_dump(mode="json", exclude_none=True) for name, figure in figures.items()
        }
        record |= {"rows": len(data.test), "recipe_hash": choice.recipe_hash, "drop": drop.model_dump()}
        session.run.put(record, "test.json")
    return _labels(predictor, data.test.inputs, answers)


def _labels(predictor: Predictor, inputs: Sequence[Any], answers: Answers) -> list[str]:
    """The label of each row as the bundle would tell it a client."""
    task = predictor.task
    if not task.labels:
        return []
    if task.layout != "words":
        return [task.labels[index] for index in answers.predicted.tolist()]
    # A client sends a text, which is cut into words anew, and not always as the data were.
    texts = [task.to_text(value) for value in inputs]
    starts = range(0, len(texts), _BATCH_ROWS)
    return [row["label"] for start in starts for row in predictor.predict(texts[start : start + _BATCH_ROWS])]


def trial_app(config: RunConfig) -> str:
    """The Serve application of a run's test: on a cluster, no endpoint of the same name may be replaced."""
    return f"{config.name}-test"


def serve_test(
    session: Session, context: TrialContext, bundle: Bundle, teacher: Candidate, expected: list[str]
) -> dict[str, Any]:
    """Serve teacher and choice in turn, replay test rows, and write `served.json`.

    Raises:
        ServiceError: the cluster serves something else, the endpoint does not start, or requests failed.
    """
    config = session.config
    if ray_runtime.is_joined():
        check_vacant(trial_app(config))
        undeploy(trial_app(config))  # Of a try that was killed: else it would be updated, not started.
    task = context.load_task()
    texts = [task.to_text(value) for value in context.data.test.inputs]
    part = len(texts) if config.serving.teacher_rows is None else min(config.serving.teacher_rows, len(texts))
    rows = np.sort(np.random.default_rng([config.seed, 6]).choice(len(texts), part, replace=False))
    teacher_bundle = write_candidate_bundle(session, context, teacher, ".scratch", "teacher-bundle")
    log = session.root / "logs" / "exporter.log"
    with running_exporter(session.run.location, free_port(), session.ray_metrics_url, log) as metrics_url:
        teacher_part = _serve(
            session, teacher_bundle, f"{config.name}-teacher", [texts[row] for row in rows], metrics_url
        )[1]
        replayed, choice_part = _serve(session, bundle, config.name, texts, metrics_url)
    differing = [row for row, label in enumerate(replayed.labels) if label != expected[row]]
    record = {
        **choice_part,
        "agreement": 1 - len(differing) / len(texts),
        "differing_rows": differing[:_LISTED],
        "teacher": teacher_part,
    }
    session.run.put(record, "served.json")
    return record


def _serve(
    session: Session, bundle: Bundle, model: str, texts: list[str], metrics_url: str
) -> tuple[Replay, dict[str, Any]]:
    """Deploy, replay, read the dollars back, take down."""
    # The test stage is between this process and the endpoint: nobody else gets in, and nothing scales.
    private = {"host": "127.0.0.1", "api_keys": None, "access_log": None, "max_replicas": None}
    config = session.config.serving.model_copy(update=private)
    title = f"serving {model} ({bundle.manifest.engine} {bundle.manifest.precision})"
    progress.tell(f"deploying {model}", 0, 1, force=True)
    ledger = ReplicaLedger(session.run.location, session.config, session.ledger.node)
    joined = ray_runtime.is_joined()
    # On a cluster the replicas stay beside the client, since a loopback address is not another node's.
    # A head may offer no CPUs to tasks; now that nothing else runs, they take some all the same.
    crowded = joined and ray_runtime.head_cores() < config.replicas * config.cores_per_replica
    url = deploy(
        bundle.folder,
        config,
        model_name=model,
        app_name=trial_app(session.config),
        num_cpus=0.0 if crowded else None,
        ledger=ledger,
        on_head=joined,
    )
    try:
        found = replay(
            url,
            texts,
            connections=config.client_connections,
            timeout_s=config.timeout_s,
            on_progress=lambda done: progress.tell(title, done, len(texts)),
        )
        if found.failures:
            raise ServiceError(
                f"{found.failures} of {len(texts)} requests failed", where=url, remedy="see the log"
            )
        usd = _read_usd(metrics_url, model, len(texts))
    finally:
        undeploy(trial_app(session.config))
    return found, {
        "model": model,
        "rows": len(texts),
        "rps": found.rps,
        "p50_ms": found.p50_ms,
        "p99_ms": found.p99_ms,
        "elapsed_s": found.elapsed_s,
        "connections": config.client_connections,
        "usd_per_1k": usd,
        "usd_per_1k_rps": session.config.cost.rps,
    }


def _read_usd(metrics_url: str, model: str, requests: int) -> float:
    """$/1k requests from the exporter, once it has seen every request."""
    progress.tell(f"reading the cost metrics of {model}", 0, 1, force=True)
    deadline = time.monotonic() + _METRICS_WAIT_S
    while time.monotonic() < deadline:
        seen = read_metric(metrics_url, "equipoise_requests_total", {"model": model, "status": "200"})
        usd = read_metric(metrics_url, "equipoise_serving_usd_per_1k", {"model": model})
        if seen is not None and seen >= requests and usd is not None:
            return usd
        time.sleep(0.5)
    raise ServiceError("the cost metrics did not arrive in time", where=metrics_url, remedy="run again")
