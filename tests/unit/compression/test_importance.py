from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from equipoise.compression.importance import Scores, most_important, score
from equipoise.engines.narrowing import find_parts
from equipoise.tasks.text_classification import TextClassification
from equipoise.training.encoding import encode_examples
from equipoise.training.examples import Examples
from equipoise.training.initialization import load_initial_model

SEQUENCES = "AutoModelForSequenceClassification"


@pytest.fixture
def model(tiny_classifier: Path) -> Any:
    return load_initial_model(str(tiny_classifier), SEQUENCES, None, None).eval()


@pytest.fixture
def examples(
    tiny_task: TextClassification, intent_rows: Callable[[int, int], list[tuple[str, str]]]
) -> Examples:
    texts, labels = zip(*intent_rows(20, 3), strict=True)
    return encode_examples(tiny_task, list(texts), list(labels))


def losses(model: Any, examples: Examples) -> torch.Tensor:
    with torch.inference_mode():
        inputs = {name: torch.from_numpy(array) for name, array in examples.arrays.items()}
        return functional.cross_entropy(
            model(**inputs).logits, torch.from_numpy(examples.targets), reduction="none"
        ).double()


def test_a_taylor_score_is_the_squared_slope_of_a_rows_loss(model: Any, examples: Examples) -> None:
    found = score(model, "taylor", examples)
    parts, step = find_parts(model), 1e-2
    for place, unit in ((0, 1), (1, 0)):
        column = parts[place].joined.weight.data[:, unit * 16 : (unit + 1) * 16]
        kept = column.clone()
        column.mul_(1 + step)
        above = losses(model, examples)
        column.copy_(kept * (1 - step))
        below = losses(model, examples)
        column.copy_(kept)
        expected = float((((above - below) / (2 * step)) ** 2).mean())
        assert found.heads[place][unit] == pytest.approx(expected, rel=0.02, abs=1e-8)
    column = parts[0].contracting.weight.data[:, 7]
    kept = column.clone()
    column.mul_(1 + step)
    above = losses(model, examples)
    column.copy_(kept * (1 - step))
    below = losses(model, examples)
    column.copy_(kept)
    expected = float((((above - below) / (2 * step)) ** 2).mean())
    assert found.ffn[0][7] == pytest.approx(expected, rel=0.05, abs=1e-8)


def test_scoring_leaves_the_model_as_it_was(model: Any, examples: Examples) -> None:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    answers = losses(model, examples)
    first, second = score(model, "taylor", examples), score(model, "taylor", examples)
    assert first == second
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(losses(model, examples), answers)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_silent_unit_has_no_score(model: Any, examples: Examples) -> None:
    parts = find_parts(model)
    with torch.no_grad():
        parts[0].joined.weight[:, :16] = 0
        parts[1].contracting.weight[:, 3] = 0
    found = score(model, "taylor", examples)
    assert found.heads[0][0] == found.ffn[1][3] == 0
    assert min(found.heads[0][1], *found.heads[1]) > 0


def test_magnitude_is_the_squared_norm_of_what_a_unit_is_made_of(model: Any, examples: Examples) -> None:
    found = score(model, "magnitude", examples)
    parts = find_parts(model)[1]
    head = sum(float(linear.weight.detach()[16:].double().square().sum()) for linear in parts.projections)
    head += float(parts.joined.weight.detach()[:, 16:].double().square().sum())
    assert found.heads[1][1] == pytest.approx(head)
    neuron = parts.expanding[0].weight.detach()[9].double().square().sum()
    neuron += parts.contracting.weight.detach()[:, 9].double().square().sum()
    assert found.ffn[1][9] == pytest.approx(float(neuron))


def test_scores_of_a_llama_count_heads_that_share_keys_as_one(tiny_llama: Path) -> None:
    model: Any = load_initial_model(str(tiny_llama), "AutoModelForCausalLM", None, None)
    ids = np.array([[3, 5, 8, 13], [4, 6, 9, 14]])
    rows = Examples({"input_ids": ids}, np.roll(ids, -1, axis=1), np.array([4, 4]))
    found = score(model, "taylor", rows)
    assert [len(layer) for layer in found.heads] == [2, 2]
    assert [len(layer) for layer in found.ffn] == [64, 64]
    assert Scores.model_validate_json(found.model_dump_json()) == found


@given(scores=st.lists(st.floats(0, 10), min_size=1, max_size=20), data=st.data())
def test_the_kept_units_are_the_best_in_their_order(scores: list[float], data: st.DataObject) -> None:
    count = data.draw(st.integers(1, len(scores)))
    kept = most_important(scores, count)
    assert kept == sorted(set(kept))
    assert len(kept) == count
    left = [value for place, value in enumerate(scores) if place not in kept]
    assert not left or max(left) <= min(scores[place] for place in kept)
