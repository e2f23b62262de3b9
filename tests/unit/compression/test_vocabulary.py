from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from equipoise.compression.vocabulary import check_trimmable, kept_ids, trim_embeddings, trim_tokenizer
from equipoise.errors import ConfigError
from equipoise.tasks.text_classification import TextClassification
from equipoise.training.initialization import load_initial_model, save_model

WORDS = "my parcel is late please refund the fee tokenizations"


@pytest.fixture(scope="module")
def whole(tiny_classifier: Path) -> Tokenizer:
    found = Tokenizer.from_file(str(tiny_classifier / "tokenizer.json"))
    found.no_padding()
    found.no_truncation()
    return found


@pytest.fixture(scope="module")
def kept(whole: Tokenizer) -> list[int]:
    return kept_ids(whole, whole.encode(WORDS).ids)


@pytest.fixture(scope="module")
def trimmed(whole: Tokenizer, kept: list[int]) -> Tokenizer:
    return trim_tokenizer(whole, kept)


def test_the_vocabulary_holds_what_is_used_special_and_single(whole: Tokenizer, trimmed: Tokenizer) -> None:
    pieces = trimmed.get_vocab()
    assert set(whole.encode(WORDS).tokens) <= pieces.keys()
    assert {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "##a", "ß", "##ß", "7"} <= pieces.keys()
    assert len(pieces) < whole.get_vocab_size() / 5
    assert sorted(pieces.values()) == list(range(len(pieces)))
    assert "itinerary" not in pieces


@given(words=st.lists(st.sampled_from(WORDS.split()), min_size=1, max_size=12))
def test_texts_of_known_pieces_are_cut_as_before(
    whole: Tokenizer, trimmed: Tokenizer, kept: list[int], words: list[str]
) -> None:
    text = " ".join(words)
    assert trimmed.encode(text).tokens == whole.encode(text).tokens
    assert [kept[place] for place in trimmed.encode(text).ids] == whole.encode(text).ids


@given(text=st.text(alphabet="abcdefghijklmnopqrstuvwxyz0123456789éß", min_size=1, max_size=24))
def test_any_other_word_is_cut_into_pieces_that_spell_it(
    whole: Tokenizer, trimmed: Tokenizer, text: str
) -> None:
    before, after = whole.encode(text).tokens, trimmed.encode(text).tokens
    assert ("[UNK]" in before) == ("[UNK]" in after)
    spelt = ["".join(token.removeprefix("##") for token in tokens[1:-1]) for tokens in (before, after)]
    assert spelt[0] == spelt[1]


def test_padding_and_the_markers_have_their_new_numbers(trimmed: Tokenizer, tmp_path: Path) -> None:
    trimmed.save(str(tmp_path / "tokenizer.json"))
    task = TextClassification(
        Tokenizer.from_file(str(tmp_path / "tokenizer.json")), ("a", "b"), max_length=16
    )
    arrays = task.encode(["my parcel", "my parcel is late"])
    pieces = trimmed.get_vocab()
    assert arrays["input_ids"][0].tolist() == [
        *(pieces[name] for name in ("[CLS]", "my", "parcel", "[SEP]")),
        *[pieces["[PAD]"]] * 4,
    ]
    assert arrays["attention_mask"][0].tolist() == [1, 1, 1, 1, 0, 0, 0, 0]


def test_the_model_answers_texts_of_kept_pieces_as_before(
    tiny_classifier: Path, whole: Tokenizer, trimmed: Tokenizer, kept: list[int], tmp_path: Path
) -> None:
    name = "AutoModelForSequenceClassification"
    model: Any = load_initial_model(str(tiny_classifier), name, None, None).eval()
    before_count = sum(p.numel() for p in model.parameters())
    with torch.inference_mode():
        before = model(input_ids=torch.tensor([whole.encode(WORDS).ids])).logits
        trim_embeddings(model, kept)
        save_model(model, tmp_path)
        again = load_initial_model(str(tmp_path), name, None, None).eval()
        after = again(input_ids=torch.tensor([trimmed.encode(WORDS).ids])).logits
    torch.testing.assert_close(after, before)
    assert again.config.vocab_size == len(kept)
    assert again.config.pad_token_id == trimmed.token_to_id("[PAD]")
    lost = (whole.get_vocab_size() - len(kept)) * 32
    assert before_count - sum(p.numel() for p in again.parameters()) == lost


def test_a_vocabulary_of_another_kind_is_refused(tiny_llama: Path) -> None:
    with pytest.raises(ConfigError, match="WordPiece") as caught:
        check_trimmable(Tokenizer.from_file(str(tiny_llama / "tokenizer.json")))
    assert "BPE" in str(caught.value)
    with pytest.raises(ConfigError, match="no tokenizer"):
        check_trimmable(None)


def test_used_ids_may_be_of_any_kind_of_integer(whole: Tokenizer) -> None:
    rows: Callable[..., Any] = np.unique
    assert kept_ids(whole, rows([7592, 7592]).tolist()) == kept_ids(whole, [7592])
