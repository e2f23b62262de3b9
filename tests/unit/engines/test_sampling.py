from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from equipoise.engines.generation import GenerationParams
from equipoise.engines.sampling import choose, log_likelihoods, new_draw

SHARES = np.array([0.5, 0.25, 0.15, 0.07, 0.03])


def frequencies(count: int, shares: np.ndarray, **options: float) -> np.ndarray:
    params = GenerationParams(**{"temperature": 1.0, **options})
    draw = new_draw(11)
    scores = np.log(shares).astype(np.float32)
    chosen = [choose(scores, params, draw) for _ in range(count)]
    return np.bincount(chosen, minlength=len(shares)) / count


def test_tokens_are_drawn_as_often_as_they_are_likely() -> None:
    np.testing.assert_allclose(frequencies(20_000, SHARES), SHARES, atol=0.015)
    hot = SHARES**0.5 / (SHARES**0.5).sum()
    np.testing.assert_allclose(frequencies(20_000, SHARES, temperature=2.0), hot, atol=0.015)


def test_top_p_leaves_out_what_is_beyond_its_share() -> None:
    np.testing.assert_allclose(
        frequencies(20_000, SHARES, top_p=0.8), [5 / 9, 2.5 / 9, 1.5 / 9, 0, 0], atol=0.015
    )
    assert frequencies(50, SHARES, top_p=0.0).tolist() == [1, 0, 0, 0, 0]
    # More candidates than are sorted at first.
    flat = np.full(5000, 1 / 5000)
    assert len(np.flatnonzero(frequencies(20_000, flat, top_p=0.9))) > 4000


@pytest.mark.parametrize("temperature", [0.0, 1e-9, 5e-324])
def test_no_temperature_takes_the_likeliest(temperature: float) -> None:
    assert frequencies(50, SHARES[::-1].copy(), temperature=temperature).tolist() == [0, 0, 0, 0, 1]


def test_any_seed_of_64_bits_draws_and_each_draws_differently() -> None:
    found = {new_draw(seed).random() for seed in (-(2**63), -1, 0, 1, 2**63 - 1)}
    assert len(found) == 5
    assert new_draw(7).random() == new_draw(7).random()


@settings(max_examples=50)
@given(st.lists(st.floats(-1e4, 1e4, width=32), min_size=2, max_size=40))
def test_log_likelihoods_are_torch_s(logits: list[float]) -> None:
    rows = np.array([logits, logits[::-1]], np.float32)
    np.testing.assert_allclose(
        log_likelihoods(rows), torch.from_numpy(rows).log_softmax(dim=-1).numpy(), atol=1e-3, rtol=1e-5
    )
