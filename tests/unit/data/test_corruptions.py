from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from equipoise.data import CORRUPTIONS, corrupt, corrupt_rows
from equipoise.data.corruptions import KINDS
from equipoise.errors import ConfigError

TEXT = "Please tell me where the parcel of order 1234 has gone, it was due on Monday morning already"


def words_changed(before: str, after: str) -> int:
    return sum(a != b for a, b in zip(before.split(" "), after.split(" "), strict=True))


def test_every_kind_comes_in_both_shares() -> None:
    assert set(CORRUPTIONS) == {(kind, share) for kind in KINDS for share in (0.1, 0.2)}
    assert len(CORRUPTIONS) == 12


@pytest.mark.parametrize(("kind", "share"), CORRUPTIONS)
def test_the_share_of_words_is_altered(kind: str, share: float) -> None:
    words = len(TEXT.split())
    for seed in range(20):
        changed = words_changed(TEXT, corrupt_rows([TEXT], kind, share, seed)[0])
        assert changed == (
            max(1, round(share * words)) if kind != "word_order" else 2 * round(share * words / 2)
        )


@pytest.mark.parametrize("kind", KINDS)
def test_a_text_of_two_words_is_altered(kind: str) -> None:
    assert corrupt_rows(["good morning"], kind, 0.1, seed=3) != ["good morning"]


def test_what_each_kind_does() -> None:
    rng = np.random.default_rng(0)
    for _ in range(30):
        typo = corrupt("keyboard", "typos", 0.1, rng)
        assert len(typo) == 8
        assert sum(a != b for a, b in zip(typo, "keyboard", strict=True)) == 1
        assert len(corrupt("keyboard", "dropped_characters", 0.1, rng)) == 7
        assert sorted(corrupt("keyboard", "swapped_characters", 0.1, rng)) == sorted("keyboard")
        assert corrupt("keyboard", "case", 0.1, rng) == "KEYBOARD"
        assert corrupt("KEYBOARD", "case", 0.1, rng) == "keyboard"
        assert corrupt("keyboard", "punctuation", 0.1, rng)[:-1] == "keyboard"
        assert corrupt("keyboard?!", "punctuation", 0.1, rng) == "keyboard"
        assert sorted(corrupt(TEXT, "word_order", 0.2, rng).split()) == sorted(TEXT.split())


def test_white_space_is_left_alone() -> None:
    assert corrupt(" a\tb\n", "word_order", 0.1, np.random.default_rng(0)) == " b\ta\n"


def test_a_row_is_corrupted_alike_in_any_batch() -> None:
    texts = [f"{TEXT} {number}" for number in range(10)]
    whole = corrupt_rows(texts, "typos", 0.2, seed=5)
    order = [7, 2, 9]
    assert corrupt_rows([texts[i] for i in order], "typos", 0.2, 5, order) == [whole[i] for i in order]
    assert corrupt_rows(texts, "typos", 0.2, seed=6) != whole
    assert corrupt_rows([TEXT] * 10, "typos", 0.1, 5) != [corrupt_rows([TEXT], "typos", 0.1, 5)[0]] * 10


@given(text=st.text(max_size=60), kind=st.sampled_from(KINDS), share=st.floats(0, 1), seed=st.integers(0, 99))
def test_any_text_goes_through(text: str, kind: str, share: float, seed: int) -> None:
    once = corrupt_rows([text], kind, share, seed)
    assert once == corrupt_rows([text], kind, share, seed)
    assert bool(once[0].strip()) == bool(text.strip())


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"no such corruption \(got 'noise'\)"):
        corrupt("a", "noise", 0.1, np.random.default_rng(0))
