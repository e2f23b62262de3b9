"""The shapes that OpenVINO meets: few, whatever lengths and numbers of rows come."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from equipoise.compression.export import export_model
from equipoise.engines import Predictor, open_engine
from equipoise.engines.buckets import ROWS
from equipoise.engines.openvino_engine import OpenVinoEngine
from equipoise.tasks.pieces import LENGTH_STEP
from equipoise.tasks.text_classification import TextClassification


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory, tiny_classifier: Path) -> Predictor:
    tokenizer = Tokenizer.from_file(str(tiny_classifier / "tokenizer.json"))
    task = TextClassification(tokenizer, ("billing", "delivery", "travel"), max_length=32)
    folder = tmp_path_factory.mktemp("engine")
    (folder / "openvino").mkdir()
    export_model(
        tiny_classifier,
        folder / "openvino",
        engine="openvino",
        precision="fp32",
        task=task,
        calibration=[],
        onnx_cache=folder / "onnx",
    )
    return Predictor(task, open_engine("openvino", folder / "openvino", "fp32"))


@pytest.fixture(scope="module")
def texts(intent_rows: Callable[[int, int], list[tuple[str, str]]]) -> list[str]:
    return [text for text, _ in intent_rows(150, 4)]


def test_rows_that_fill_a_batch_up_are_not_answered_and_alter_nothing(
    predictor: Predictor, texts: list[str]
) -> None:
    alone = np.concatenate([predictor.answers([text]).logits for text in texts])
    assert np.abs(alone - alone[0]).max() > 1e-3
    for rows in range(1, 36):
        found = predictor.answers(texts[:rows], batch_size=rows).logits
        np.testing.assert_allclose(found, alone[:rows], atol=1e-4)


def test_a_model_meets_few_shapes(predictor: Predictor, texts: list[str]) -> None:
    engine = predictor.engine
    assert isinstance(engine, OpenVinoEngine)
    draw = np.random.default_rng(0)
    met, asked = set(), set()
    for _ in range(200):
        chosen = [texts[n] for n in draw.integers(0, len(texts), draw.integers(1, 33))]
        predictor.predict(chosen)
        met.add(tuple(engine.request.get_input_tensor(0).shape))
        asked.add((len(chosen), int(predictor.task.lengths(chosen).max())))
    assert len(met) < len(asked) / 3
    assert {rows for rows, _ in met} <= set(ROWS)
    assert all(length % LENGTH_STEP == 0 for _, length in met)


def test_more_rows_than_any_batch_has_run_as_they_are(predictor: Predictor, texts: list[str]) -> None:
    rows = ROWS[-1] + 1
    assert len(predictor.answers(texts[:rows], batch_size=rows).logits) == rows
