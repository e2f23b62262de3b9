from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from equipoise.compression.export import export_model
from equipoise.engines import Engine, Predictor, open_engine
from equipoise.measurement.agreement import measure_agreement
from equipoise.runs import Agreement
from equipoise.tasks import Arrays
from equipoise.tasks.text_classification import TextClassification


@pytest.fixture
def texts(intent_rows: Callable[[int, int], list[tuple[str, str]]]) -> list[str]:
    return [text for text, _ in intent_rows(150, 4)]


@pytest.fixture
def torch_engine(tiny_classifier: Path) -> Engine:
    return open_engine("torch", tiny_classifier, "fp32")


def measured(task: TextClassification, engine: Engine, original: Engine, texts: list[str]) -> Agreement:
    predictor = Predictor(task, engine)
    return measure_agreement(
        predictor,
        texts,
        predictor.answers(texts),
        Predictor(task, original).answers(texts),
        sample_rows=40,
        batch_size=16,
        seed=1,
    )


class BatchScaled:
    """Divides its answers by the largest of the batch, as dynamic quantization would round them."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def run(self, inputs: Arrays) -> Arrays:
        logits = self.engine.run(inputs)["logits"]
        step = np.abs(logits).max() / 2
        return {"logits": np.round(logits / step) * step}


def test_a_model_agrees_with_itself(
    tiny_task: TextClassification, torch_engine: Engine, texts: list[str]
) -> None:
    found = measured(tiny_task, torch_engine, torch_engine, texts)
    assert found.rows == len(texts)
    assert found.changed_labels == 0
    assert found.neighbour_changes == 0
    assert found.max_logit_difference < 1e-4


def test_an_engine_that_looks_at_the_neighbours_is_found_out(
    tiny_task: TextClassification, torch_engine: Engine, texts: list[str]
) -> None:
    found = measured(tiny_task, BatchScaled(torch_engine), torch_engine, texts)
    assert found.neighbour_changes > 0.01
    assert found.max_logit_difference > 0.1


def test_dynamic_int8_looks_at_the_neighbours_and_static_does_not(
    tiny_task: TextClassification,
    torch_engine: Engine,
    tiny_classifier: Path,
    texts: list[str],
    tmp_path: Path,
) -> None:
    found = {}
    for precision in ("int8_dynamic", "int8"):
        target = tmp_path / precision
        target.mkdir()
        export_model(
            tiny_classifier,
            target,
            engine="onnxruntime",
            precision=precision,
            task=tiny_task,
            calibration=[tiny_task.encode(texts[start : start + 16]) for start in range(0, 96, 16)],
            onnx_cache=tmp_path / "onnx",
        )
        engine = open_engine("onnxruntime", target, precision)
        found[precision] = measured(tiny_task, engine, torch_engine, texts)
    assert found["int8_dynamic"].neighbour_changes > found["int8"].neighbour_changes == 0
    assert found["int8_dynamic"].max_neighbour_difference > 1000 * found["int8"].max_neighbour_difference


def test_a_small_sample_finds_the_same_changes_as_every_row(
    tiny_task: TextClassification, torch_engine: Engine, texts: list[str]
) -> None:
    engine = BatchScaled(torch_engine)
    predictor = Predictor(tiny_task, engine)
    answers = predictor.answers(texts)
    found = [
        measure_agreement(
            predictor, texts, answers, answers, sample_rows=sample_rows, batch_size=16, seed=1
        ).neighbour_changes
        for sample_rows in (10, len(texts))
    ]
    # Each draws company of its own; the rows that it is drawn for are the same.
    assert found[0] == pytest.approx(found[1], abs=0.05)
    assert found[0] > 0.1
