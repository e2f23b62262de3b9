"""A language model from prompts to the report, by the command: adapters, distillation, 8 bits, no HTTP."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import GPT2LMHeadModel

from equipoise.bundle import open_bundle
from equipoise.config.model import ModelConfig
from equipoise.costs.ledger import read_ledger
from equipoise.data import load_rows
from equipoise.engines import Predictor, open_engine
from equipoise.runs import Candidate, RunFolder
from equipoise.tasks.text_generation import TextGeneration

# The run itself takes about a minute, in the setup of the first test.
# A whole run of minutes; the parts have tests of their own.
pytestmark = [pytest.mark.timeout(600), pytest.mark.slow]


@dataclass(frozen=True)
class Finished:
    """A finished run, and what a second try of it did."""

    folder: Path
    test_file: Path
    first: subprocess.CompletedProcess[str]
    again: subprocess.CompletedProcess[str]

    @property
    def summary(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.first.stdout)
        return found

    @property
    def candidates(self) -> list[Candidate]:
        return RunFolder(self.folder).candidates()


@pytest.fixture(scope="module")
def prompts(
    tmp_path_factory: pytest.TempPathFactory, intent_rows: Callable[[int, int], list[tuple[str, str]]]
) -> Callable[[str, int, int], Path]:
    """`prompts(name, count, seed)`: texts as prompts, each followed by the topic that it is about."""

    def write(name: str, count: int, seed: int) -> Path:
        path = tmp_path_factory.mktemp("prompts") / f"{name}.jsonl"
        rows = [{"ask": text, "say": f" is about {topic}"} for text, topic in intent_rows(count, seed)]
        path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
        return path

    return write


@pytest.fixture(scope="module")
def finished(
    runs: Any,
    tiny_run: Callable[..., dict[str, Any]],
    tiny_llama: Path,
    prompts: Callable[[str, int, int], Path],
) -> Finished:
    test_file = prompts("test", 24, 2)
    values = tiny_run(
        task="text_generation",
        data={
            "train": str(prompts("train", 120, 1)),
            "test": str(test_file),
            "text_column": "say",
            "prompt_column": "ask",
        },
        model={"teacher": str(tiny_llama), "max_length": 48},
        distillation={"epochs": 6, "learning_rate": 1e-2, "generated_tokens": 12},
        training={"lora": {"rank": 8, "alpha": 16}, "epochs": 20, "learning_rate": 1e-2},
        search={
            "trials": 4,
            "depths": [1],
            "engines": ["torch", "openvino"],
            "precisions": ["fp32", "int8_weights"],
        },
        constraints={"max_drop": None, "max_relative_drop": 0.9},
    )
    folder = runs.folder / "run"
    arguments = ("run", "-f", str(runs.write("run.yaml", values)), "--out", str(folder), "--json")
    first = runs.call(*arguments)
    assert first.returncode == 0, first.stderr
    return Finished(folder, test_file, first, runs.call(*arguments))


def score(folder: Path, task: TextGeneration, rows: list[tuple[str, str]]) -> float:
    """Token likelihood of a torch model folder."""
    answers = Predictor(task, open_engine("torch", folder, "fp32")).answers(rows)
    return float(task.metric(task.tally(answers, np.empty(0, np.int64), len(rows)).sum(axis=0)))


def test_the_run_says_that_its_test_is_not_served_and_is_finished(finished: Finished) -> None:
    assert "text_generation is tested in this process" in finished.first.stderr
    assert not (finished.folder / "served.json").exists()
    assert (finished.folder / "report.html").is_file()
    assert finished.again.returncode == 0
    assert "this run is finished" in finished.again.stderr
    assert "Traceback" not in finished.first.stderr


def test_adapters_are_merged_into_a_teacher_that_has_learnt(finished: Finished, tiny_llama: Path) -> None:
    task = TextGeneration.create(tiny_llama, (), ModelConfig(teacher=str(tiny_llama), max_length=48))
    rows = load_rows(str(finished.test_file), "say", "label", 1000, "prompt", "ask").inputs
    before, after = (score(folder, task, rows) for folder in (tiny_llama, finished.folder / "teacher"))
    # An untrained model knows of one token in several hundred; what follows here is the same but for a word.
    assert before < 0.05
    assert after > 0.25
    record = json.loads((finished.folder / "test.json").read_text(encoding="utf-8"))
    assert record["teacher"]["metric"]["value"] == pytest.approx(after, rel=1e-3)


def test_a_student_learns_what_the_teacher_writes_by_its_likeliest_tokens(finished: Finished) -> None:
    [file] = (finished.folder / "teacher" / "texts").glob("*.json")
    texts = json.loads(file.read_text(encoding="utf-8"))
    assert len(texts) == 96
    assert sum(text.startswith(" is about ") for text in texts) > 48
    students = [candidate for candidate in finished.candidates if candidate.recipe.distilled]
    assert students
    assert all(student.quality.metric.value > 0.2 for student in students)
    caches = [np.load(file) for file in (finished.folder / "teacher" / "outputs").glob("*.npz")]
    assert {arrays["classes"].shape[1] for arrays in caches} == {3, 16}


def test_every_candidate_is_measured_with_perplexity_and_robustness(finished: Finished) -> None:
    precisions = {candidate.recipe.precision for candidate in finished.candidates}
    assert precisions == {"fp32", "int8_weights"}
    for candidate in finished.candidates:
        quality = candidate.quality
        assert quality.metric_name == "token likelihood"
        assert quality.perplexity is not None
        assert quality.perplexity.value == pytest.approx(1 / quality.metric.value)
        assert quality.perplexity.low <= quality.perplexity.value <= quality.perplexity.high
        assert quality.macro_f1 is None
        assert quality.robustness is not None
        assert 0 < quality.robustness.value < 1.5


def test_the_bundle_opens_and_scores(finished: Finished) -> None:
    bundle = open_bundle(finished.folder / "bundle")
    manifest = bundle.manifest
    engine = open_engine(manifest.engine, bundle.model_folder, manifest.precision)
    [answer] = Predictor(bundle.load_task(), engine).predict([("my parcel is late", " is about delivery")])
    assert answer["tokens"] > 1
    assert 1 < answer["perplexity"] < 50


def test_the_summary_states_perplexity_and_no_served_figures(finished: Finished, runs: Any) -> None:
    summary = finished.summary
    assert summary["served"] is None
    choice = summary["choice"]
    assert choice["perplexity"] == pytest.approx(1 / choice["metric"])
    assert "macro_f1" not in choice
    shown = runs.call("show", str(finished.folder))
    assert shown.returncode == 0
    assert "perplexity" in shown.stdout
    assert "macro-F1" not in shown.stdout
    page = (finished.folder / "report.html").read_text(encoding="utf-8")
    assert "perplexity (validation)" in page
    assert "macro-F1" not in page
    compared = runs.call("compare", str(finished.folder), "teacher", "choice")
    assert compared.returncode == 0, compared.stderr


@pytest.mark.timeout(1200)
def test_a_gpt2_in_shards_is_distilled_to_fewer_layers_and_runs_in_every_engine(
    runs: Any,
    tiny_run: Callable[..., dict[str, Any]],
    tiny_gpt2: Path,
    prompts: Callable[[str, int, int], Path],
) -> None:
    """Its config says n_layer, its layers are transposed, its queries, keys and values are one matrix."""
    teacher_folder = runs.folder / "gpt2-shards"
    GPT2LMHeadModel.from_pretrained(tiny_gpt2).save_pretrained(teacher_folder, max_shard_size="40KB")
    shutil.copyfile(tiny_gpt2 / "tokenizer.json", teacher_folder / "tokenizer.json")
    assert not (teacher_folder / "model.safetensors").exists()
    values = tiny_run(
        task="text_generation",
        data={
            "train": str(prompts("train", 120, 1)),
            "test": str(prompts("test", 24, 2)),
            "text_column": "say",
            "prompt_column": "ask",
        },
        model={"teacher": str(teacher_folder), "max_length": 48},
        distillation={
            "epochs": 6,
            "learning_rate": 1e-2,
            "hidden_weight": 0.1,
            "relation_weight": 0.1,
            "relation_heads": 4,
        },
        training={"epochs": 12, "learning_rate": 1e-2},
        search={"trials": 4, "depths": [2], "engines": ["torch", "onnxruntime", "openvino"]},
        constraints={"max_drop": None, "max_relative_drop": 0.9},
    )
    values["search"]["precisions"] = ["fp32"]
    folder = runs.folder / "gpt2"
    config = str(runs.write("gpt2.yaml", values))
    ended = runs.call("run", "-f", config, "--out", str(folder), "--json", timeout_s=1100)
    assert ended.returncode == 0, ended.stderr
    candidates = RunFolder(folder).candidates()
    assert {candidate.recipe.engine for candidate in candidates} == {"torch", "onnxruntime", "openvino"}
    teacher = next(candidate for candidate in candidates if candidate.is_teacher)
    assert teacher.quality.metric.value > 0.25
    students = [candidate for candidate in candidates if candidate.recipe.distilled]
    assert {candidate.recipe.layers for candidate in students} == {(0, 1)}
    assert all(student.quality.metric.value > 0.2 for student in students)
    assert all(student.parameters < teacher.parameters for student in students)
    assert all(candidate.eligible for candidate in candidates), [c.rejection for c in candidates]
    shown = RunFolder(folder).read("students", "layers-0-1", "trained.json")
    assert shown["loss"] > 0
    # What students were held to of the teacher's inside was computed in tasks, and billed.
    assert any(line.resource_id.startswith("teacher/states/") for line in read_ledger(RunFolder(folder)))
    bundle = open_bundle(folder / "bundle")
    engine = open_engine(bundle.manifest.engine, bundle.model_folder, bundle.manifest.precision)
    [answer] = Predictor(bundle.load_task(), engine).predict([("my parcel is late", " is about delivery")])
    assert 1 < answer["perplexity"] < 50
