"""Examples on disk make the same batches as examples in memory."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from equipoise.config.model import ModelConfig
from equipoise.tasks import Task, find_task
from equipoise.training.encoding import encode_examples
from equipoise.training.examples import take_batch

Case = tuple[Task, list[Any], list[Any]]


@pytest.fixture(params=["text_classification", "token_classification", "text_generation"])
def case(
    request: pytest.FixtureRequest, minilm: Path, intent_rows: Callable[[int, int], list[tuple[str, str]]]
) -> Case:
    texts, labels = map(list, zip(*intent_rows(60, 3), strict=True))
    inputs: list[Any] = texts
    answers: list[Any] = labels
    if request.param == "token_classification":
        inputs = [text.split() for text in texts]
        answers = [[label] * len(words) for words, label in zip(inputs, labels, strict=True)]
    if request.param == "text_generation":
        inputs, answers = [("", text) for text in texts], [""] * len(texts)
    task = find_task(request.param).create(
        minilm, sorted(set(labels)), ModelConfig(teacher=str(minilm), max_length=12)
    )
    return task, inputs, answers


def test_batches_from_disk_are_those_from_memory(case: Case, tmp_path: Path) -> None:
    task, inputs, labels = case
    memory = encode_examples(task, inputs, labels)
    disk = encode_examples(task, inputs, labels, cache=tmp_path)
    sent, whole = pickle.loads(pickle.dumps((disk, memory)))  # noqa: S301 - what Ray does between processes
    assert whole.digest() == memory.digest()
    assert len(pickle.dumps(disk)) < 2000
    assert np.array_equal(disk.lengths, memory.lengths)
    assert np.array_equal(disk.places, memory.places)
    for rows in (np.array([3, 0, 41]), np.array([59]), np.arange(60)):
        wanted, found, far = (take_batch(examples, rows, "cpu") for examples in (memory, disk, sent))
        assert torch.equal(found.targets, wanted.targets)
        assert torch.equal(far.targets, wanted.targets)
        for name, tensor in wanted.inputs.items():
            assert torch.equal(found.inputs[name], tensor), name
            assert found.inputs[name].dtype == tensor.dtype


def test_rows_are_encoded_once(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task, inputs, labels = case
    first = encode_examples(task, inputs, labels, cache=tmp_path)

    def fail(*_: Any) -> Any:
        raise AssertionError("encoded again")

    monkeypatch.setattr(type(task), "encode", fail)
    again = encode_examples(task, inputs, labels, cache=tmp_path)
    assert again.digest() == first.digest()
    with pytest.raises(AssertionError, match="encoded again"):
        encode_examples(task, [*inputs[1:], inputs[0]], [*labels[1:], labels[0]], cache=tmp_path)


def test_another_preprocessor_is_another_encoding(case: Case, tmp_path: Path) -> None:
    task, inputs, labels = case
    encode_examples(task, inputs, labels, cache=tmp_path)
    folder = _saved(task, tmp_path / "task")
    shorter = task.load(folder, {**task.describe(), "max_length": 6})
    assert encode_examples(shorter, inputs, labels, cache=tmp_path).lengths.max() <= 6


def _saved(task: Task, folder: Path) -> Path:
    folder.mkdir()
    task.save(folder)
    return folder
