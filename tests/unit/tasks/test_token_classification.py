from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from equipoise.config.model import ModelConfig
from equipoise.errors import BundleError
from equipoise.tasks import IGNORED, Arrays, find_task
from equipoise.tasks.token_classification import ASKED, TokenClassification, split_words

TAGS = ("B-LOC", "B-PER", "I-LOC", "I-PER", "O")


@pytest.fixture
def tagger(minilm: Path) -> TokenClassification:
    return TokenClassification.create(minilm, TAGS, ModelConfig(teacher=str(minilm), max_length=16))


def saying(arrays: Arrays, tags: list[list[str]]) -> Arrays:
    """Outputs that give each word's first piece a tag, and every other piece nonsense."""
    logits = np.full((*arrays[ASKED].shape, len(TAGS)), 0.0, dtype=np.float32)
    logits[..., 0] = 9
    for row, said in enumerate(tags):
        for piece, tag in zip(np.flatnonzero(arrays[ASKED][row]), said, strict=False):
            logits[row, piece] = 4 * np.eye(len(TAGS))[TAGS.index(tag)]
    return {"logits": logits}


def test_it_is_a_registered_family() -> None:
    assert find_task("token_classification") is TokenClassification


def test_every_word_is_asked_once_at_its_first_piece(tagger: TokenClassification) -> None:
    sentences = [["Unquestionably", "Oslo"], ["Yes"]]
    arrays = tagger.encode(sentences)
    assert arrays[ASKED].sum(axis=1).tolist() == [2, 1]
    first = arrays["input_ids"][0][arrays[ASKED][0] == 1]
    pieces = [tagger.tokenizer.id_to_token(int(piece)) for piece in first]
    assert pieces[1] == "oslo"
    assert "unquestionably".startswith(pieces[0])
    assert tagger.lengths(sentences).tolist() == arrays["attention_mask"].sum(axis=1).tolist()


def test_targets_stand_where_answers_are_read(tagger: TokenClassification) -> None:
    sentences = [["Anna", "visits", "Unquestionably", "Oslo"], ["Oslo"]]
    tags = [["B-PER", "O", "O", "B-LOC"], ["B-LOC"]]
    arrays = tagger.encode(sentences)
    targets = tagger.targets(arrays, tags)
    assert ((targets != IGNORED) == (arrays[ASKED] == 1)).all()
    answers = tagger.read(saying(arrays, tags), arrays)
    assert answers.row_of.tolist() == [0, 0, 0, 0, 1]
    assert answers.predicted.tolist() == targets[targets != IGNORED].tolist()


def test_words_beyond_the_limit_are_neither_asked_nor_answered(tagger: TokenClassification) -> None:
    sentence = ["Oslo"] * 40
    arrays = tagger.encode([sentence])
    targets = tagger.targets(arrays, [["B-LOC"] * 40])
    assert 0 < (targets != IGNORED).sum() < 16
    assert len(tagger.read(saying(arrays, [["O"] * 40]), arrays)) == (targets != IGNORED).sum()


def test_entities_of_a_text_have_offsets_in_characters(tagger: TokenClassification) -> None:
    text = "Anna O'Neill, of Oslo."
    words, spans = split_words(text)
    assert words == ["Anna", "O'Neill", ",", "of", "Oslo", "."]
    assert [text[start:end] for start, end in spans] == words
    arrays = tagger.encode([text])
    outputs = saying(arrays, [["B-PER", "I-PER", "O", "O", "B-LOC", "O"]])
    [answer] = tagger.decode(outputs, arrays, [text])
    assert [(e["label"], e["text"], e["start"], e["end"]) for e in answer["entities"]] == [
        ("PER", "Anna O'Neill", 0, 12),
        ("LOC", "Oslo", 17, 21),
    ]
    assert all(0.9 < entity["score"] <= 1 for entity in answer["entities"])


def test_entities_of_words_have_offsets_in_words(tagger: TokenClassification) -> None:
    words = ["In", "New", "York"]
    arrays = tagger.encode([words])
    [answer] = tagger.decode(saying(arrays, [["O", "B-LOC", "I-LOC"]]), arrays, [words])
    assert answer["tags"] == ["O", "B-LOC", "I-LOC"]
    assert answer["label"] == "O B-LOC I-LOC"
    [entity] = answer["entities"]
    assert (entity["text"], entity["start"], entity["end"]) == ("New York", 1, 3)


def test_what_is_saved_is_loaded(tagger: TokenClassification, tmp_path: Path) -> None:
    tagger.temperature = 1.7
    tagger.save(tmp_path)
    again = TokenClassification.load(tmp_path, tagger.describe())
    sentence = [["Anna", "visits", "Oslo"]]
    assert again.describe() == tagger.describe()
    for name, array in tagger.encode(sentence).items():
        np.testing.assert_array_equal(again.encode(sentence)[name], array)


def test_a_description_that_lacks_something_is_refused(tagger: TokenClassification, tmp_path: Path) -> None:
    tagger.save(tmp_path)
    description = tagger.describe()
    del description["labels"]
    with pytest.raises(BundleError, match="lacks 'labels'"):
        TokenClassification.load(tmp_path, description)
