from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from equipoise.config.model import ModelConfig
from equipoise.engines import Predictor, open_engine
from equipoise.errors import BundleError
from equipoise.tasks import IGNORED, find_task
from equipoise.tasks.text_generation import NEXT_IDS, TextGeneration

ROWS = [
    ("", "please refund the invoice today"),
    ("tell me about the parcel", " the courier is late"),
    ("", "flight"),
    ("my hotel", " needs a visa for this passport and that luggage"),
]


@pytest.fixture(scope="module")
def writer(tiny_llama: Path) -> TextGeneration:
    return TextGeneration.create(tiny_llama, (), ModelConfig(teacher=str(tiny_llama), max_length=24))


@pytest.fixture(scope="module")
def predictor(tiny_llama: Path, writer: TextGeneration) -> Predictor:
    return Predictor(writer, open_engine("torch", tiny_llama, "fp32"))


@pytest.fixture(scope="module")
def likelihoods(tiny_llama: Path) -> torch.nn.Module:
    return AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32).eval()


def test_it_is_a_registered_family_of_prompts_without_labels(writer: TextGeneration) -> None:
    assert find_task("text_generation") is TextGeneration
    assert TextGeneration.layout == "prompt"
    assert writer.labels == ()


def test_of_a_text_alone_every_token_but_the_first_is_scored(writer: TextGeneration) -> None:
    arrays = writer.encode([("", "please refund the invoice")])
    ids = writer.tokenizer.encode("please refund the invoice").ids
    assert arrays["input_ids"].tolist() == [ids]
    assert arrays[NEXT_IDS].tolist() == [[*ids[1:], IGNORED]]


def test_of_a_prompt_what_follows_is_scored_with_the_end(writer: TextGeneration) -> None:
    arrays = writer.encode([("tell me", " about it"), ("", "a")])
    prompt, text = (writer.tokenizer.encode(part).ids for part in ("tell me", " about it"))
    whole = [*prompt, *text, 0]
    assert arrays["input_ids"][0].tolist() == whole
    assert arrays[NEXT_IDS][0].tolist() == [IGNORED] * (len(prompt) - 1) + [*text, 0, IGNORED]
    # The other row is padding but for one token, of which nothing precedes.
    assert (arrays[NEXT_IDS][1] == IGNORED).all()


def test_a_row_that_is_too_long_keeps_the_end_of_its_prompt_and_the_start_of_what_follows(
    writer: TextGeneration,
) -> None:
    prompt, text = "invoice " * 40 + "the", " parcel" * 40
    ids = [writer.tokenizer.encode(part).ids for part in (prompt, text)]
    [row] = writer.encode([(prompt, text)])["input_ids"].tolist()
    assert row == ids[0][-12:] + ids[1][:12]
    [short] = writer.encode([("the", text)])["input_ids"].tolist()
    start = len(writer.tokenizer.encode("the").ids)
    assert len(short) == 24
    assert short[start:] == ids[1][: 24 - start]


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.text(max_size=30), st.text(max_size=60)), min_size=1, max_size=5))
def test_any_rows_encode_to_as_many_targets_as_places(
    writer: TextGeneration, rows: list[tuple[str, str]]
) -> None:
    arrays = writer.encode(rows)
    assert arrays["input_ids"].shape == arrays[NEXT_IDS].shape
    assert arrays["input_ids"].shape[1] == writer.lengths(rows).max() <= writer.max_length
    logits = np.random.default_rng(0).normal(size=(*arrays["input_ids"].shape, 50)).astype(np.float32)
    scored = arrays[NEXT_IDS] != IGNORED
    arrays[NEXT_IDS][scored] %= 50
    answers = writer.read({"logits": logits}, arrays)
    assert len(answers) == scored.sum()
    np.testing.assert_allclose(np.exp(answers.logits).sum(axis=1), 1, rtol=1e-5)
    assert (answers.predicted == logits[scored].argmax(axis=1)).all()
    best = np.sort(logits[scored], axis=1)
    np.testing.assert_allclose(answers.margins, best[:, -1] - best[:, -2], atol=1e-5)


def test_the_metric_is_one_over_the_perplexity_that_transformers_computes(
    predictor: Predictor, likelihoods: torch.nn.Module, writer: TextGeneration
) -> None:
    answers = predictor.answers(ROWS, batch_size=3)
    losses, tokens = 0.0, 0
    for row in ROWS:
        arrays = writer.encode([row])
        targets = torch.from_numpy(arrays[NEXT_IDS])
        count = int((targets != IGNORED).sum())
        with torch.inference_mode():
            logits = likelihoods(input_ids=torch.from_numpy(arrays["input_ids"])).logits
        losses += float(torch.nn.functional.cross_entropy(logits[0], targets[0], reduction="sum"))
        tokens += count
    sums = writer.tally(answers, np.empty(0, np.int64), len(ROWS)).sum(axis=0)
    assert tokens == sums[1]
    assert writer.metric(sums) == pytest.approx(np.exp(-losses / tokens), rel=1e-5)


def test_a_row_answers_alike_alone_and_beside_longer_ones(predictor: Predictor) -> None:
    together = predictor.answers(ROWS, order=np.arange(len(ROWS)))
    for row, given_row in enumerate(ROWS):
        alone = predictor.answers([given_row])
        np.testing.assert_allclose(alone.logits, together.at(together.row_of == row).logits, atol=1e-4)


def test_the_likeliest_tokens_come_first_and_the_rest_makes_one(
    predictor: Predictor, writer: TextGeneration
) -> None:
    top = predictor.collect(ROWS, lambda outputs, arrays: writer.read_top(outputs, arrays, 5))
    whole = predictor.answers(ROWS)
    assert top.logits.shape == (len(whole), 6)
    assert (top.predicted == whole.predicted).all()
    assert (np.diff(top.logits[:, :5], axis=1) <= 0).all()
    np.testing.assert_allclose(np.exp(top.logits).sum(axis=1), 1, rtol=1e-5)
    assert (
        all(len(set(classes)) == 5 for classes in top.classes.tolist()) if top.classes is not None else False
    )


def test_an_answer_states_tokens_likelihood_and_perplexity(predictor: Predictor) -> None:
    several, one = predictor.predict(["please refund the invoice", "a"])
    assert several["perplexity"] == pytest.approx(np.exp(-several["log_likelihood"] / several["tokens"]))
    assert one == {"tokens": 0, "log_likelihood": 0.0, "perplexity": None}


def test_nothing_to_score_is_a_metric_of_zero(writer: TextGeneration) -> None:
    assert writer.metric(np.zeros((3, 2))).tolist() == [0, 0, 0]


def test_it_loads_what_it_saves(writer: TextGeneration, tmp_path: Path) -> None:
    writer.save(tmp_path)
    again = TextGeneration.load(tmp_path, writer.describe())
    first, second = writer.encode(ROWS), again.encode(ROWS)
    assert all(np.array_equal(first[name], second[name]) for name in first)
    with pytest.raises(BundleError, match="end_id"):
        TextGeneration.load(tmp_path, {"max_length": 8})


def test_the_length_ends_where_the_models_positions_do(tiny_llama: Path) -> None:
    task = TextGeneration.create(tiny_llama, (), ModelConfig(teacher="x", max_length=4096))
    assert task.max_length == 64


def test_a_prompt_leaves_room_and_tokens_become_text_again(writer: TextGeneration) -> None:
    prompt = "please refund the invoice for the late parcel"
    ids = writer.tokenizer.encode(prompt).ids
    assert writer.prompt_ids(prompt, 4) == ids[-20:]
    assert writer.prompt_ids(prompt, 1000) == ids[-1:]
    assert writer.text_of([*ids, 0]) == prompt


def test_no_input_is_longer_than_a_gpt2_has_positions(tiny_gpt2: Path) -> None:
    task = TextGeneration.create(tiny_gpt2, (), ModelConfig(teacher=str(tiny_gpt2), max_length=512))
    assert task.max_length == 48
    given = [(" the courier is late" * 20, " and my parcel too" * 20)]
    assert task.encode(given)["input_ids"].shape == (1, 48)
    [answer] = Predictor(task, open_engine("torch", tiny_gpt2, "fp32")).predict(given)
    assert answer["tokens"] == 24
