from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from equipoise.engines import ENGINES, Predictor, engine, is_installed, open_engine
from equipoise.errors import BundleError, ConfigError
from equipoise.tasks.text_classification import TextClassification

TEXTS = [
    "where is my parcel",
    "refund",
    "the flight to oslo and the hotel near the airport were late",
    "fee",
] * 5


@pytest.fixture
def predictor(tiny_classifier: Path, tiny_task: TextClassification) -> Predictor:
    return Predictor(tiny_task, open_engine("torch", tiny_classifier, "fp32"))


def test_the_torch_engine_runs_a_model(predictor: Predictor) -> None:
    outputs = predictor.engine.run(predictor.task.encode(TEXTS[:3]))
    assert outputs["logits"].shape == (3, 3)
    assert outputs["logits"].dtype == np.float32


def test_bf16_is_close_to_fp32(predictor: Predictor, tiny_classifier: Path) -> None:
    other = Predictor(predictor.task, open_engine("torch", tiny_classifier, "bf16"))
    logits = other.answers(TEXTS).logits
    assert logits.dtype == np.float32
    assert np.abs(logits - predictor.answers(TEXTS).logits).max() < 0.2


def test_logits_come_in_input_order_whatever_the_batches(predictor: Predictor) -> None:
    one_by_one = np.concatenate([predictor.answers([text]).logits for text in TEXTS])
    assert np.abs(one_by_one[0] - one_by_one[1]).max() > 1e-3
    for batch_size in (1, 3, 32):
        np.testing.assert_allclose(predictor.answers(TEXTS, batch_size).logits, one_by_one, atol=1e-5)


def test_no_inputs_give_no_logits(predictor: Predictor) -> None:
    assert predictor.answers([]).logits.shape == (0, 3)


def test_predictions_are_the_logits_decoded(predictor: Predictor) -> None:
    answers = predictor.predict(TEXTS)
    best = predictor.answers(TEXTS).logits.argmax(axis=1)
    assert [answer["label"] for answer in answers] == [predictor.task.labels[i] for i in best]
    assert len({answer["label"] for answer in answers}) > 1


def test_the_torch_engine_keeps_to_its_threads(tiny_classifier: Path) -> None:
    import torch

    before = torch.get_num_threads()
    open_engine("torch", tiny_classifier, "fp32", threads=1)
    assert torch.get_num_threads() == 1
    torch.set_num_threads(before)


@pytest.mark.parametrize("name", list(ENGINES))
def test_a_folder_without_the_engines_model_is_refused(name: str, tmp_path: Path) -> None:
    if not is_installed(name):
        pytest.skip(f"{name} is not installed")
    with pytest.raises(BundleError, match=f"{name} cannot load the model") as caught:
        open_engine(name, tmp_path, "fp32")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "file"),
    [("torch", "model.safetensors"), ("onnxruntime", "model.onnx"), ("openvino", "model.xml")],
)
def test_a_damaged_model_is_refused(name: str, file: str, tiny_classifier: Path, tmp_path: Path) -> None:
    if not is_installed(name):
        pytest.skip(f"{name} is not installed")
    (tmp_path / "config.json").write_bytes((tiny_classifier / "config.json").read_bytes())
    (tmp_path / file).write_bytes(b"not a model")
    with pytest.raises(BundleError, match=f"{name} cannot load the model"):
        open_engine(name, tmp_path, "fp32")


def test_the_torch_engine_reads_no_pickle(tiny_classifier: Path, tmp_path: Path) -> None:
    import torch

    (tmp_path / "config.json").write_bytes((tiny_classifier / "config.json").read_bytes())
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(BundleError, match="torch cannot load the model"):
        open_engine("torch", tmp_path, "fp32")


def test_an_unknown_or_absent_engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no such engine \(got 'tensorrt'\); one of torch, onnxruntime"):
        open_engine("tensorrt", tmp_path, "fp32")
    monkeypatch.setattr(engine, "is_installed", lambda name: False)
    with pytest.raises(
        ConfigError, match=r"engine is not installed \(got 'openvino'\); pip install openvino"
    ):
        open_engine("openvino", tmp_path, "fp32")


def test_asking_whether_an_engine_is_installed_imports_nothing() -> None:
    assert not is_installed("no_such_library")
    before = set(sys.modules)
    is_installed("openvino")
    assert "openvino" not in set(sys.modules) - before
