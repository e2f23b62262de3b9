"""The four jobs of each family, submitted by Ray's own command to a real cluster that wants a token."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import yaml

from equipoise.ray_runtime import MEASURED_SLOT, free_port
from equipoise.runs import RunFolder

# Twenty jobs, each a process that starts its libraries anew.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]

START_S, JOB_S = 120, 400
RAY = [sys.executable, "-m", "ray.scripts.scripts"]
TRAINED_ROWS, TEST_ROWS = 72, 24


@dataclass(frozen=True)
class Family:
    """A config's own sections, the rows to test on, and what an evaluation of the family must say."""

    values: dict[str, Any]
    test: str
    layers: str
    keys: frozenset[str]


class TokenCluster:
    """One node of two CPUs whose dashboard, jobs and clients all want the token."""

    def __init__(self, folder: Path, repository: Path) -> None:
        self.folder, self.repository = folder, repository
        self.token = uuid.uuid4().hex + uuid.uuid4().hex
        dashboard = free_port()
        self.address = f"http://127.0.0.1:{dashboard}"
        # Ray's sockets lie below it, whose paths may have no more than 107 bytes.
        self.sockets = tempfile.mkdtemp(prefix="eq-")
        ports = {
            "port": free_port(),
            "dashboard-port": dashboard,
            "ray-client-server-port": free_port(),
            "metrics-export-port": free_port(),
            "dashboard-agent-listen-port": free_port(),
            "min-worker-port": 0,
            "max-worker-port": 0,
            "num-cpus": 2,
            "resources": json.dumps({MEASURED_SLOT: 1}),
        }
        options = [f"--{name}={value}" for name, value in ports.items()]
        options += ["--head", "--block", "--dashboard-host=127.0.0.1", f"--temp-dir={self.sockets}"]
        with (folder / "head.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*RAY, "start", *options],
                stdout=log,
                stderr=log,
                env=self.environment(self.token),
                start_new_session=True,
            )

    def environment(self, token: str) -> dict[str, str]:
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
        return inherited | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": token,
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_TRAIN_V2_ENABLED": "1",
            "RAY_worker_niceness": "0",
            "OMP_NUM_THREADS": "1",
            "DS_ACCELERATOR": "cpu",
            "XDG_STATE_HOME": str(self.folder / "state"),
            "XDG_CACHE_HOME": str(self.folder / "cache"),
        }

    def ray(self, *arguments: str, token: str | None = None) -> subprocess.CompletedProcess[str]:
        """`ray job …` from the root of the checkout."""
        return subprocess.run(
            [*RAY, "job", arguments[0], "--address", self.address, *arguments[1:]],
            cwd=self.repository,
            env=self.environment(token or self.token),
            capture_output=True,
            text=True,
            timeout=JOB_S,
        )

    def submit(self, *entrypoint: str) -> str:
        """Submit, wait for SUCCEEDED, and return what the command showed of the job."""
        found = self.ray("submit", "--working-dir", ".", "--", "python", *entrypoint)
        assert found.returncode == 0, found.stdout[-4000:] + found.stderr[-2000:]
        assert "succeeded" in found.stdout, found.stdout[-2000:]
        return found.stdout

    def wait_until_it_answers(self) -> None:
        deadline = time.monotonic() + START_S
        while (found := self.ray("list")).returncode != 0:
            assert self.process.poll() is None, (self.folder / "head.log").read_text()[-3000:]
            assert time.monotonic() < deadline, found.stderr[-2000:]
            time.sleep(1)

    def stop(self) -> None:
        # Ray gives its processes groups of their own.
        with contextlib.suppress(psutil.NoSuchProcess):
            parent = psutil.Process(self.process.pid)
            for process in [*parent.children(recursive=True), parent]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
        self.process.wait(timeout=30)
        shutil.rmtree(self.sockets, ignore_errors=True)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Iterator[TokenCluster]:
    made = TokenCluster(tmp_path_factory.mktemp("cluster"), repository)
    try:
        made.wait_until_it_answers()
        yield made
    finally:
        made.stop()


Rows = list[tuple[str, str]]
Draw = Callable[[int, int], Rows]


def write_json_lines(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def write_tags(path: Path, rows: Rows) -> str:
    """CoNLL columns: of each text its longest word is an entity of the text's topic."""

    def tag(word: str, text: str, topic: str) -> str:
        return f"B-{topic}" if word == max(text.split(), key=len) else "O"

    sentences = (
        "\n".join(f"{word} {tag(word, text, topic)}" for word in text.split()) for text, topic in rows
    )
    path.write_text("\n\n".join(sentences) + "\n", encoding="utf-8")
    return str(path)


def write_images(folder: Path, count: int, seed: int) -> str:
    """Six labels, told apart by the row that is bright."""
    from PIL import Image

    draw = np.random.default_rng(seed)
    for number in range(count):
        label = number % 6
        pixels = draw.integers(0, 60, (12, 12), dtype=np.uint8)
        pixels[2 * label : 2 * label + 2] += 180
        (folder / f"band-{label}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / f"band-{label}" / f"{number}.png")
    return str(folder)


def text_family(folder: Path, draw: Draw, model: Path) -> Family:
    train, test = (
        write_json_lines(
            folder / f"{name}.jsonl", [{"text": text, "label": label} for text, label in draw(count, seed)]
        )
        for name, count, seed in (("train", TRAINED_ROWS, 1), ("test", TEST_ROWS, 2))
    )
    values = {
        "task": "text_classification",
        "data": {"train": train, "test": test},
        "model": {"teacher": str(model), "max_length": 32},
    }
    return Family(values, test, "1", frozenset({"classes", "confusions"}))


def tag_family(folder: Path, draw: Draw, model: Path) -> Family:
    train, test = (
        write_tags(folder / f"{name}.conll", draw(count, seed))
        for name, count, seed in (("train", TRAINED_ROWS, 1), ("test", TEST_ROWS, 2))
    )
    values = {
        "task": "token_classification",
        "data": {"train": train, "test": test},
        "model": {"teacher": str(model), "max_length": 32},
    }
    return Family(values, test, "0", frozenset({"classes", "entities", "accuracy"}))


def language_family(folder: Path, draw: Draw, model: Path) -> Family:
    train, test = (
        write_json_lines(
            folder / f"{name}.jsonl",
            [{"text": f"{text} is about {topic}"} for text, topic in draw(count, seed)],
        )
        for name, count, seed in (("train", TRAINED_ROWS, 1), ("test", TEST_ROWS, 2))
    )
    values = {
        "task": "text_generation",
        "data": {"train": train, "test": test},
        "model": {"teacher": str(model), "max_length": 32},
        "constraints": {"max_drop": None, "max_relative_drop": 0.9},
        "search": {"engines": ["torch"], "precisions": ["fp32"]},
    }
    return Family(values, test, "0", frozenset({"perplexity"}))


def image_family(folder: Path, draw: Draw, model: Path) -> Family:
    train = write_images(folder / "train", TRAINED_ROWS, 1)
    test = write_images(folder / "test", TEST_ROWS, 2)
    architecture = {
        "num_channels": 1,
        "embedding_size": 8,
        "hidden_sizes": [8, 12],
        "depths": [2, 2],
        "layer_type": "basic",
        "downsample_in_first_stage": False,
    }
    values = {
        "task": "image_classification",
        "data": {"train": train, "test": test, "deduplicate": False},
        "model": {"teacher": "new://resnet", "image_size": 12, "architecture": architecture},
        "search": {"depths": [2]},
    }
    return Family(values, test, "0,2", frozenset({"classes", "top5"}))


FAMILIES = {
    "text_classification": (text_family, "tiny_bert"),
    "token_classification": (tag_family, "tiny_bert"),
    "text_generation": (language_family, "tiny_llama"),
    "image_classification": (image_family, "tiny_bert"),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_each_job_of_a_family_succeeds_and_leaves_what_it_should(
    name: str,
    cluster: TokenCluster,
    tiny_run: Callable[..., dict[str, Any]],
    intent_rows: Draw,
    request: pytest.FixtureRequest,
    tmp_path: Path,
) -> None:
    build, model = FAMILIES[name]
    family = build(tmp_path, intent_rows, request.getfixturevalue(model))
    ports = {"port": free_port(), "metrics_port": free_port(), "teacher_rows": 20}
    values = tiny_run(
        training={"epochs": 2, "workers": 1}, distillation={"epochs": 1}, serving=ports, **family.values
    )
    if name == "image_classification":
        del values["model"]["max_length"]
    config = tmp_path / "run.yaml"
    config.write_text(yaml.safe_dump(values), encoding="utf-8")
    run, evaluation, predictions = tmp_path / "run", tmp_path / "evaluation", tmp_path / "predictions"

    shown = cluster.submit("jobs/finetune.py", "-f", str(config), "--out", str(run))
    assert f"done: {run / 'teacher'}" in shown
    assert (run / "teacher" / "model.safetensors").is_file()
    assert json.loads((run / "teacher" / "trained.json").read_text())["task"]["name"] == name

    shown = cluster.submit("jobs/distill.py", "-f", str(config), "--layers", family.layers, "--out", str(run))
    student = run / "students" / f"layers-{family.layers.replace(',', '-')}"
    assert f"done: {student}" in shown
    assert (student / "model.safetensors").stat().st_size < (
        run / "teacher" / "model.safetensors"
    ).stat().st_size

    cluster.submit(
        "jobs/evaluate.py",
        str(run / "teacher"),
        "--data",
        family.test,
        "--out",
        str(evaluation),
        "--robustness-rows",
        "8",
    )
    record = json.loads((evaluation / "evaluation.json").read_text())
    assert (record["task"], record["rows"]) == (name, TEST_ROWS)
    assert record.keys() >= family.keys
    assert 0 <= record["quality"]["metric"]["low"] <= record["quality"]["metric"]["high"] <= 1
    if "perplexity" in family.keys:
        likelihood = record["quality"]["metric"]["value"]
        assert record["perplexity"]["value"] == pytest.approx(1 / likelihood, rel=1e-6)

    cluster.submit("jobs/predict.py", str(run / "teacher"), family.test, str(predictions))
    lines = [
        json.loads(line)
        for part in sorted((predictions / "parts").iterdir())
        for line in part.read_text(encoding="utf-8").splitlines()
    ]
    assert [line["row"] for line in lines] == list(range(TEST_ROWS))

    # The whole run goes on from there: what `equipoise run -f` does.
    shown = cluster.submit("jobs/search.py", "-f", str(config), "--out", str(run))
    assert f"done: {run}" in shown
    candidates = RunFolder(run).candidates()
    assert {candidate.recipe.distilled for candidate in candidates} == {True, False}
    assert json.loads((run / "choice.json").read_text())["feasible"]
    for name in ("test.json", "bundle/bundle.json", "report.html"):
        assert (run / name).is_file(), name


def test_without_the_token_no_job_is_taken(cluster: TokenCluster) -> None:
    refused = cluster.ray("submit", "--", "true", token="0" * 64)
    assert refused.returncode != 0
    assert cluster.ray("list").returncode == 0
