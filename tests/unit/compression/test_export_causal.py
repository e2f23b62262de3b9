from __future__ import annotations

import functools
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from equipoise.compression.export import SUPPORTED_CAUSAL, export_model
from equipoise.config.model import ModelConfig
from equipoise.engines import Predictor, open_engine
from equipoise.tasks.text_generation import TextGeneration

PAIRS = [(engine, precision) for engine, found in SUPPORTED_CAUSAL.items() for precision in found]
LARGEST_DIFFERENCE = {"fp32": 1e-3, "bf16": 0.3, "fp16": 0.05, "int8_weights": 0.3, "int4_weights": 3.0}


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def model(request: pytest.FixtureRequest, tiny_llama: Path, tiny_gpt2: Path) -> Path:
    return {"llama": tiny_llama, "gpt2": tiny_gpt2}[request.param]


@pytest.fixture(scope="module")
def writer(model: Path) -> TextGeneration:
    return TextGeneration.create(model, (), ModelConfig(teacher=str(model), max_length=24))


@pytest.fixture(scope="module")
def texts(intent_rows: Callable[[int, int], list[tuple[str, str]]]) -> list[tuple[str, str]]:
    return [
        ("", text) if row % 2 else (text, " and that") for row, (text, _) in enumerate(intent_rows(40, 5))
    ]


@pytest.fixture(scope="module")
def export(
    model: Path, writer: TextGeneration, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, str], Path]:
    source = tmp_path_factory.mktemp("source") / "model"
    shutil.copytree(model, source)

    @functools.cache
    def build(engine: str, precision: str) -> Path:
        target = tmp_path_factory.mktemp(f"{engine}-{precision}")
        export_model(
            source,
            target,
            engine=engine,
            precision=precision,
            task=writer,
            calibration=[],
            onnx_cache=source / "onnx",
        )
        return target

    return build


@pytest.mark.parametrize(("engine", "precision"), PAIRS)
def test_an_export_scores_as_torch_does_whatever_stands_beside_a_row(
    engine: str,
    precision: str,
    export: Callable[[str, str], Path],
    model: Path,
    writer: TextGeneration,
    texts: list[tuple[str, str]],
) -> None:
    predictor = Predictor(writer, open_engine(engine, export(engine, precision), precision))
    answers = predictor.answers(texts, batch_size=8)
    original = Predictor(writer, open_engine("torch", model, "fp32")).answers(texts)
    # What is there, and the best other: the rest follows from them.
    difference = np.abs(answers.logits - original.logits)[:, :2].max()
    assert difference < LARGEST_DIFFERENCE[precision]
    assert difference > 0 or (engine, precision) == ("torch", "fp32")
    alone = predictor.answers([texts[3]])
    beside = answers.at(answers.row_of == 3)
    np.testing.assert_allclose(alone.logits, beside.logits, atol=1e-4 if "bf16" not in precision else 0.1)


def test_fewer_bits_take_less_room(export: Callable[[str, str], Path]) -> None:
    sizes = [
        (export("openvino", precision) / "model.bin").stat().st_size
        for precision in ("fp32", "int8_weights", "int4_weights")
    ]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > 2 * sizes[1]
