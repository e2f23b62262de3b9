from __future__ import annotations

import functools
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from equipoise.compression.export import SUPPORTED, export_model
from equipoise.engines import ENGINES, Predictor, open_engine
from equipoise.tasks.text_classification import TextClassification

PAIRS = [(engine, precision) for engine, precisions in SUPPORTED.items() for precision in precisions]
LARGEST_DIFFERENCE = {"fp32": 1e-3, "bf16": 0.3, "fp16": 0.05}
SHARE_OF_LABELS = {
    "fp32": 1.0,
    "bf16": 0.95,
    "fp16": 0.98,
    "int8": 0.9,
    "int8_guarded": 0.9,
    "int8_qat": 0.9,
    "int8_dynamic": 0.85,
}


@pytest.fixture(scope="module")
def texts(intent_rows: Callable[[int, int], list[tuple[str, str]]]) -> list[str]:
    return [text for text, _ in intent_rows(120, 5)]


@pytest.fixture(scope="module")
def task(tiny_classifier: Path) -> TextClassification:
    tokenizer = Tokenizer.from_file(str(tiny_classifier / "tokenizer.json"))
    return TextClassification(tokenizer, ("billing", "delivery", "travel"), max_length=32)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory, tiny_classifier: Path) -> Path:
    folder = tmp_path_factory.mktemp("source") / "model"
    shutil.copytree(tiny_classifier, folder)
    return folder


@pytest.fixture(scope="module")
def export(
    source: Path, task: TextClassification, texts: list[str], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, str], Path]:
    """Exports each pair once; the ONNX graph is traced once for all, as in a run."""

    @functools.cache
    def build(engine: str, precision: str) -> Path:
        target = tmp_path_factory.mktemp(f"{engine}-{precision}")
        export_model(
            source,
            target,
            engine=engine,
            precision=precision,
            task=task,
            calibration=[task.encode(texts[start : start + 16]) for start in range(0, 96, 16)],
            onnx_cache=source / "onnx",
        )
        return target

    return build


def test_every_engine_is_exported_for() -> None:
    assert SUPPORTED.keys() == ENGINES.keys()


@pytest.mark.parametrize(("engine", "precision"), PAIRS)
def test_an_export_opens_and_answers_as_torch_does(
    engine: str,
    precision: str,
    export: Callable[[str, str], Path],
    source: Path,
    task: TextClassification,
    texts: list[str],
) -> None:
    target = export(engine, precision)
    predictor = Predictor(task, open_engine(engine, target, precision))
    logits = predictor.answers(texts).logits
    original = Predictor(task, open_engine("torch", source, "fp32")).answers(texts).logits
    assert logits.shape == original.shape
    assert np.isfinite(logits).all()
    if precision in LARGEST_DIFFERENCE:
        assert np.abs(logits - original).max() < LARGEST_DIFFERENCE[precision]
    same = (logits.argmax(axis=1) == original.argmax(axis=1)).mean()
    assert same >= SHARE_OF_LABELS[precision]
    # Batch and length are open: one short row, and more and longer rows than were traced.
    assert predictor.answers(["refund"]).logits.shape == (1, 3)
    assert predictor.answers(["parcel " * 40] * 7, batch_size=7).logits.shape == (7, 3)
    assert not list(target.glob(".tmp-*"))


@pytest.mark.parametrize("engine", [engine for engine in SUPPORTED if "int8" in SUPPORTED[engine]])
def test_int8_takes_less_room(engine: str, export: Callable[[str, str], Path]) -> None:
    def encoder_bytes(precision: str) -> int:
        return sum(file.stat().st_size for file in export(engine, precision).iterdir())

    assert encoder_bytes("int8") < encoder_bytes("fp32")


def test_fp16_takes_half_the_room(export: Callable[[str, str], Path]) -> None:
    whole, half = ((export("openvino", name) / "model.bin").stat().st_size for name in ("fp32", "fp16"))
    assert half < 0.51 * whole


def test_the_graph_is_traced_once(export: Callable[[str, str], Path], source: Path) -> None:
    export("onnxruntime", "fp32")
    before = (source / "onnx" / "model.onnx").stat().st_mtime_ns
    export.__wrapped__("onnxruntime", "int8_dynamic")  # type: ignore[attr-defined]
    assert (source / "onnx" / "model.onnx").stat().st_mtime_ns == before
