"""Texts that share their steps with others are those that they would be alone."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from equipoise.engines.continuous_batch import ContinuousBatch
from equipoise.engines.generation import GenerationParams, Token
from equipoise.engines.torch_writer import TorchWriter

VOCABULARY = 300


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Threads that wait for each other over so small a model take most of the time."""
    held = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(held)


@pytest.fixture(scope="module")
def llama(tiny_llama: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def gpt2() -> Any:
    config = GPT2Config(
        vocab_size=VOCABULARY, n_positions=64, n_embd=32, n_layer=2, n_head=4, initializer_range=0.2
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return GPT2LMHeadModel(config).eval()


@pytest.fixture(params=["llama", "gpt2"])
def model(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)


def batch(model: Any, **options: int) -> ContinuousBatch:
    given = {"max_sequences": 4, "max_cached_tokens": 256, "prefill_tokens": 5} | options
    return ContinuousBatch(model, **given)


def write_together(
    found: ContinuousBatch, asked: list[tuple[list[int], GenerationParams, int]]
) -> list[list[Token]]:
    """Each prompt is added before the step that it names."""
    texts: list[list[Token]] = [[] for _ in asked]
    step = 0
    while not found.is_idle or step <= max(start for _, _, start in asked):
        for text, (ids, params, start) in zip(texts, asked, strict=True):
            if start == step:
                found.add(ids, params, text.append)
        found.step()
        step += 1
        assert step < 2000
    return texts


def ids_of(tokens: list[Token]) -> list[int]:
    return [token.id for token in tokens]


ASKED = st.lists(
    st.tuples(
        st.lists(st.integers(1, VOCABULARY - 1), min_size=1, max_size=30),
        st.integers(1, 24),
        st.integers(0, 12),
    ),
    min_size=1,
    max_size=9,
)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(asked=ASKED, stop=st.integers(0, VOCABULARY - 1), rows=st.integers(1, 5))
def test_interleaved_texts_are_those_written_alone(
    model: Any, asked: list[tuple[list[int], int, int]], stop: int, rows: int
) -> None:
    alone = TorchWriter(model)
    whole = [(ids, GenerationParams(max_tokens=room, stop_ids=(stop,)), start) for ids, room, start in asked]
    together = write_together(batch(model, max_sequences=rows), whole)
    for tokens, (ids, params, _) in zip(together, whole, strict=True):
        expected = list(alone.write(ids, params))
        assert ids_of(tokens) == ids_of(expected)
        assert [token.finish for token in tokens] == [token.finish for token in expected]
        assert [t.log_likelihood for t in tokens] == pytest.approx(
            [t.log_likelihood for t in expected], abs=1e-3
        )
        assert all(token.busy_s > 0 for token in tokens)


def test_greedy_texts_are_those_of_transformers_own_generate(model: Any) -> None:
    draw = random.Random(3)  # noqa: S311
    prompts = [[draw.randrange(1, VOCABULARY) for _ in range(count)] for count in (1, 4, 9, 17, 30)]
    params = GenerationParams(max_tokens=20)
    together = write_together(batch(model), [(ids, params, place) for place, ids in enumerate(prompts)])
    for ids, tokens in zip(prompts, together, strict=True):
        expected = model.generate(
            torch.tensor([ids]), max_new_tokens=20, do_sample=False, eos_token_id=None, pad_token_id=0
        )
        assert ids_of(tokens) == expected[0, len(ids) :].tolist()


def test_a_seed_draws_the_same_text_whatever_its_neighbours(model: Any) -> None:
    draw = random.Random(5)  # noqa: S311
    params = GenerationParams(max_tokens=24, temperature=1.3, top_p=0.9, seed=7)
    ids = [5, 8, 13, 21]
    expected = ids_of(list(TorchWriter(model).write(ids, params)))
    for count in (0, 1, 3, 6):
        neighbours = [
            (
                [draw.randrange(1, VOCABULARY) for _ in range(draw.randint(1, 20))],
                GenerationParams(max_tokens=draw.randint(1, 30), temperature=1.0, seed=number),
                draw.randint(0, 9),
            )
            for number in range(count)
        ]
        together = write_together(batch(model), [*neighbours, (ids, params, 4)])
        assert ids_of(together[-1]) == expected
    other = GenerationParams(max_tokens=24, temperature=1.3, top_p=0.9, seed=8)
    assert ids_of(list(TorchWriter(model).write(ids, other))) != expected


def test_a_text_that_is_given_up_frees_its_row_and_leaves_the_others_alone(llama: Any) -> None:
    found = batch(llama, max_sequences=2)
    params = GenerationParams(max_tokens=20)
    texts: list[list[Token]] = [[], [], []]
    [first, _, _] = [found.add([5, 6, 7 + n], params, texts[n].append) for n in range(3)]
    for _ in range(4):
        found.step()
    assert (len(texts[2]), found.waiting) == (0, 1)
    first.cancelled = True
    found.step()
    assert found.waiting == 0
    while not found.is_idle:
        found.step()
    assert len(texts[0]) < 6
    for number in (1, 2):
        assert ids_of(texts[number]) == ids_of(list(TorchWriter(llama).write([5, 6, 7 + number], params)))


def test_what_is_kept_stays_within_its_bound(llama: Any) -> None:
    # 60 tokens each: four rows would be more than 128 tokens, two are not.
    found = batch(llama, max_cached_tokens=128)
    params = GenerationParams(max_tokens=50)
    for number in range(4):
        found.add([number + 1] * 10, params, lambda token: None)
    for _ in range(10):
        found.step()
    assert found.waiting == 2
    assert found._cache.rows * found._cache.columns <= 128
    while not found.is_idle:
        found.step()


def test_a_prompt_without_tokens_or_room_is_refused(llama: Any) -> None:
    found = batch(llama)
    assert found.max_length == 64
    with pytest.raises(ValueError, match="no token to go on from"):
        found.add([], GenerationParams(), lambda token: None)
    with pytest.raises(ValueError, match="64 tokens leave no room for another: at most 64 fit"):
        found.add([1] * 64, GenerationParams(), lambda token: None)
    texts = write_together(found, [([1] * 60, GenerationParams(max_tokens=50), 0)])
    assert [token.finish for token in texts[0]] == [None, None, None, "length"]
