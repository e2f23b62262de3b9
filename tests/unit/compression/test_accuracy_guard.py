from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from equipoise.compression.accuracy_guard import Guard, _afford
from equipoise.compression.export import export_model
from equipoise.engines import Predictor, open_engine
from equipoise.tasks.text_classification import TextClassification

LABELS = ("billing", "delivery", "travel")


@pytest.fixture(scope="module")
def task(tiny_classifier: Path) -> TextClassification:
    tokenizer = Tokenizer.from_file(str(tiny_classifier / "tokenizer.json"))
    return TextClassification(tokenizer, LABELS, max_length=32)


@pytest.fixture(scope="module")
def rows(
    tiny_classifier: Path,
    task: TextClassification,
    intent_rows: Callable[[int, int], list[tuple[str, str]]],
) -> tuple[list[str], list[str]]:
    """Texts, and what fp32 says of them: its accuracy is 1, and int8's a little less."""
    texts = [text for text, _ in intent_rows(160, 5)]
    answers = Predictor(task, open_engine("torch", tiny_classifier, "fp32")).answers(texts)
    return texts, [LABELS[place] for place in answers.predicted]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory, tiny_classifier: Path) -> Path:
    folder = tmp_path_factory.mktemp("source") / "model"
    shutil.copytree(tiny_classifier, folder)
    return folder


@pytest.fixture(scope="module")
def export(
    source: Path,
    task: TextClassification,
    rows: tuple[list[str], list[str]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[..., tuple[tuple[str, ...], float, int]]:
    """`export(precision, **guard)`: what was spared, the drop on the rows, and the size of the weights."""
    texts, labels = rows

    def build(precision: str, **settings: Any) -> tuple[tuple[str, ...], float, int]:
        target = tmp_path_factory.mktemp(precision)
        spared = export_model(
            source,
            target,
            engine="openvino",
            precision=precision,
            task=task,
            calibration=[task.encode(texts[start : start + 16]) for start in range(0, 96, 16)],
            onnx_cache=source / "onnx",
            guard=Guard(task, texts, labels, **settings) if settings else None,
        )
        answers = Predictor(task, open_engine("openvino", target, precision)).answers(texts)
        same = np.mean([LABELS[place] for place in answers.predicted] == np.asarray(labels))
        return spared, 1 - float(same), (target / "model.bin").stat().st_size

    return build


def test_where_int8_loses_no_more_than_allowed_it_is_plain_int8(
    export: Callable[..., tuple[tuple[str, ...], float, int]],
) -> None:
    spared, drop, size = export("int8_guarded", max_drop=0.5, time_limit_s=1)
    assert spared == ()
    assert (drop, size) == export("int8")[1:]


@pytest.mark.slow
def test_layers_are_spared_until_the_metric_is_back(
    export: Callable[..., tuple[tuple[str, ...], float, int]],
) -> None:
    plain = export("int8")
    assert plain[1] > 0.01
    spared, drop, size = export("int8_guarded", max_drop=plain[1] / 2, time_limit_s=120)
    assert spared
    assert drop < plain[1]
    assert size > plain[2]
    assert {name.split("/")[0] for name in spared} <= {"bert", "logits", "classifier"}


@given(
    limit_s=st.floats(1, 600),
    operations=st.integers(1, 200),
    compile_s=st.floats(0.01, 2),
    pass_s=st.floats(0.01, 20),
    batches=st.integers(1, 63),
)
def test_what_is_searched_fits_the_time(
    limit_s: float, operations: int, compile_s: float, pass_s: float, batches: int
) -> None:
    steps, ranked = _afford(limit_s, operations, compile_s, pass_s, batches)
    assert steps >= 1
    assert 1 <= ranked <= batches
    ranking_s = operations * (compile_s + ranked * pass_s / batches)
    taken = ranking_s + steps * (compile_s + pass_s + ranking_s / 2)
    least_s = operations * (compile_s + pass_s / batches)
    assert taken <= limit_s * 1.001 or steps == 1 or ranked == 1
    if least_s < limit_s / 3 and compile_s + pass_s < limit_s / 3:
        assert ranking_s <= limit_s
