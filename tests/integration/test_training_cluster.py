"""Training over several raylets: placement by config, a worker that is killed, an elastic group."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from safetensors.torch import load_file

from equipoise.config import RunConfig
from equipoise.config.model import ModelConfig
from equipoise.ray_runtime import prepare_environment, start_ray, stop_ray
from equipoise.tasks import find_task
from equipoise.training.encoding import encode_examples
from equipoise.training.examples import Examples
from equipoise.training.finetune import finetune_teacher

# Warnings of other packages about each other, at their own import.
pytestmark = [
    pytest.mark.filterwarnings(
        "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning"
    ),
    pytest.mark.timeout(400),
    # Three raylets on one machine.
    pytest.mark.slow,
]

LABELS = ("billing", "delivery", "travel")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Three raylets of one CPU each: a `ray.cluster_utils.Cluster`."""
    prepare_environment()
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    for _ in range(2):
        made.add_node(num_cpus=1)
    previous = os.environ.get("RAY_ADDRESS")
    os.environ["RAY_ADDRESS"] = made.address
    start_ray()
    try:
        yield made
    finally:
        stop_ray()
        made.shutdown()
        if previous is None:
            del os.environ["RAY_ADDRESS"]
        else:
            os.environ["RAY_ADDRESS"] = previous


@pytest.fixture(scope="module")
def examples(tiny_bert: Path, intent_rows: Callable[[int, int], list[tuple[str, str]]]) -> Examples:
    task = find_task("text_classification").create(
        tiny_bert, LABELS, ModelConfig(teacher=str(tiny_bert), max_length=32)
    )
    texts, labels = zip(*intent_rows(96, 1), strict=True)
    return encode_examples(task, list(texts), list(labels))


def kill_a_worker(scratch: Path, killed: list[int]) -> None:
    """SIGKILL one training worker once two checkpoints stand."""
    if checkpoints_stand(scratch):
        process = training_workers()[0]
        process.kill()
        killed.append(process.pid)


def checkpoints_stand(scratch: Path) -> bool:
    """Whether two do within 200 seconds."""
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline:
        if len(list(scratch.glob("checkpoints-*/step-*"))) >= 2:
            return True
        time.sleep(0.02)
    return False


def training_workers() -> list[psutil.Process]:
    """Of every node: the raylets are children of this process, and the workers theirs."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if "RayTrainWorker" in " ".join(process.cmdline()):
                found.append(process)
    return found


def test_workers_on_nodes_of_their_own_survive_a_kill(
    cluster: Any, run_config: Callable[..., RunConfig], tiny_bert: Path, examples: Examples, tmp_path: Path
) -> None:
    """Killed at some step, the group goes on from its checkpoint and comes to the very same weights."""
    assert cluster
    section: dict[str, Any] = {
        "workers": 2,
        "placement": "STRICT_SPREAD",
        "precision": "fp32",
        "batch_size": 16,
        "epochs": 60,
        "learning_rate": 1e-3,
        "zero_stage": 1,
        "retries": 1,
        "checkpoint_every_steps": 20,
    }
    config = run_config(training=section)

    def train(name: str) -> dict[str, Any]:
        return finetune_teacher(
            config, tiny_bert, examples, len(LABELS), tmp_path / name, tmp_path / f"{name}-scratch"
        )

    assert train("whole")["started_step"] == 0
    killed: list[int] = []
    killer = threading.Thread(target=kill_a_worker, args=(tmp_path / "hit-scratch", killed), daemon=True)
    killer.start()
    figures = train("hit")
    killer.join(timeout=5)
    assert len(killed) == 1
    assert figures["started_step"] >= 20
    whole, hit = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "hit"))
    assert max(float((whole[name] - hit[name]).abs().max()) for name in whole) < 1e-6
    assert list((tmp_path / "hit-scratch").iterdir()) == []


def test_an_elastic_group_takes_the_nodes_that_there_are(
    cluster: Any, run_config: Callable[..., RunConfig], tiny_bert: Path, examples: Examples, tmp_path: Path
) -> None:
    assert cluster
    section = {
        "workers": "1..8",
        "precision": "fp32",
        "batch_size": 16,
        "epochs": 2,
        "learning_rate": 1e-3,
    }
    figures = finetune_teacher(
        run_config(training=section), tiny_bert, examples, len(LABELS), tmp_path / "t", tmp_path / "s"
    )
    # Three nodes of one CPU each.
    assert 1 <= len(figures["worker_cpu_s"]) <= 3
    assert (tmp_path / "t" / "model.safetensors").is_file()


def test_an_elastic_group_goes_on_without_a_node_that_is_lost(
    cluster: Any, run_config: Callable[..., RunConfig], tiny_bert: Path, examples: Examples, tmp_path: Path
) -> None:
    """Three workers, a raylet killed under one of them: two go on from the checkpoint, to the same weights.

    Ray notices the loss only after it has waited a minute for three again.
    """
    section: dict[str, Any] = {
        "workers": "1..3",
        "placement": "SPREAD",
        "precision": "fp32",
        "batch_size": 12,
        "epochs": 60,
        "learning_rate": 1e-4,
        "zero_stage": 1,
        "retries": 1,
        "checkpoint_every_steps": 20,
    }
    # Each number of workers would draw other dropout.
    base = shutil.copytree(tiny_bert, tmp_path / "base")
    described = json.loads((base / "config.json").read_text())
    none = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (base / "config.json").write_text(json.dumps(described | none))

    def train(name: str, **changed: Any) -> dict[str, Any]:
        config = run_config(training=section | changed)
        scratch = tmp_path / f"{name}-scratch"
        return finetune_teacher(config, base, examples, len(LABELS), tmp_path / name, scratch)

    worked: list[int] = []

    def lose_a_node() -> None:
        if checkpoints_stand(tmp_path / "hit-scratch"):
            worked.append(len(training_workers()))
            cluster.remove_node(cluster.list_all_nodes()[-1], allow_graceful=False)

    train("whole", workers=1)
    loser = threading.Thread(target=lose_a_node, daemon=True)
    loser.start()
    try:
        figures = train("hit")
        loser.join(timeout=30)
    finally:
        cluster.add_node(num_cpus=1)
    assert worked == [3]
    assert len(figures["worker_cpu_s"]) == 2
    assert figures["started_step"] >= 20
    whole, hit = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "hit"))
    # Two add up in another order than one; over 480 steps of 1e-4 a weight moves by up to 0.05.
    assert max(float((whole[name] - hit[name]).abs().max()) for name in whole) < 2e-3
