from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from equipoise.errors import BundleError
from equipoise.tasks.pieces import LENGTH_STEP
from equipoise.tasks.scores import softmax
from equipoise.tasks.text_classification import TextClassification

TEXTS = ["where is my parcel", "refund", "the flight to oslo and the hotel near the airport were both late"]


def test_encode_pads_to_the_longest_row_rounded_up(tiny_task: TextClassification) -> None:
    arrays = tiny_task.encode(TEXTS)
    longest = -(-int(tiny_task.lengths(TEXTS).max()) // LENGTH_STEP) * LENGTH_STEP
    assert set(arrays) == {"input_ids", "attention_mask", "token_type_ids"}
    assert all(array.shape == (3, longest) and array.dtype == np.int64 for array in arrays.values())
    assert arrays["attention_mask"].sum(axis=1).tolist() == tiny_task.lengths(TEXTS).tolist()


def test_no_row_is_padded_beyond_the_places_that_the_model_has(minilm: Path) -> None:
    task = TextClassification(Tokenizer.from_file(str(minilm / "tokenizer.json")), ["a", "b"], max_length=18)
    assert task.encode(["word " * 40, "word"])["input_ids"].shape == (2, 18)


def test_neighbours_do_not_alter_a_row(tiny_task: TextClassification) -> None:
    together = tiny_task.encode(TEXTS)
    for row, text in enumerate(TEXTS):
        alone = tiny_task.encode([text])["input_ids"][0, : tiny_task.lengths([text])[0]]
        assert together["input_ids"][row, : len(alone)].tolist() == alone.tolist()
        assert (together["input_ids"][row, len(alone) :] == 0).all()
        assert together["attention_mask"][row].sum() == len(alone)


def test_long_and_odd_texts(tiny_task: TextClassification) -> None:
    arrays = tiny_task.encode(["word " * 500, "", "\0 é 漢字 🙂\n"])
    assert arrays["input_ids"].shape == (3, 32)
    assert tiny_task.lengths(["word " * 500, ""]).tolist() == [32, 2]


def test_only_the_arrays_that_a_model_takes(tiny_task: TextClassification) -> None:
    tiny_task.inputs = ("input_ids", "attention_mask")
    assert set(tiny_task.encode(TEXTS)) == {"input_ids", "attention_mask"}


def test_decode_gives_probabilities_in_label_order(tiny_task: TextClassification) -> None:
    logits = np.array([[2.0, 0.0, -1.0], [0.0, 0.0, 5.0], [-900.0, 900.0, 0.0]], dtype=np.float32)
    answers = tiny_task.decode({"logits": logits}, {}, [])
    assert [answer["label"] for answer in answers] == ["billing", "travel", "delivery"]
    for answer in answers:
        assert sum(answer["scores"].values()) == pytest.approx(1)
        assert answer["score"] == answer["scores"][answer["label"]] == max(answer["scores"].values())
        assert list(answer["scores"]) == ["billing", "delivery", "travel"]


def test_the_temperature_softens_and_changes_no_label(tiny_task: TextClassification) -> None:
    logits = {"logits": np.array([[2.0, 0.0, -1.0]], dtype=np.float32)}
    sharp = tiny_task.decode(logits, {}, [])[0]
    tiny_task.temperature = 4.0
    soft = tiny_task.decode(logits, {}, [])[0]
    assert soft["label"] == sharp["label"]
    assert soft["score"] < sharp["score"]


def test_softmax_of_large_logits() -> None:
    scores = softmax(np.array([[1e4, 1e4], [-1e4, 0]], dtype=np.float32))
    assert scores.tolist() == [[0.5, 0.5], [0.0, 1.0]]


def test_saved_and_loaded_it_is_the_same(tiny_task: TextClassification, tmp_path: Path) -> None:
    tiny_task.temperature = 1.7
    tiny_task.save(tmp_path)
    loaded = TextClassification.load(tmp_path, tiny_task.describe())
    assert loaded.describe() == tiny_task.describe()
    for name, array in tiny_task.encode(TEXTS).items():
        assert loaded.encode(TEXTS)[name].tolist() == array.tolist()


def test_an_entry_that_lacks_a_key_is_refused(tiny_task: TextClassification, tmp_path: Path) -> None:
    tiny_task.save(tmp_path)
    entry = tiny_task.describe()
    del entry["labels"]
    with pytest.raises(BundleError, match="task entry lacks 'labels'"):
        TextClassification.load(tmp_path, entry)


def test_a_long_text_is_encoded_as_if_read_to_its_end(minilm: Path) -> None:
    task = TextClassification(Tokenizer.from_file(str(minilm / "tokenizer.json")), ["a", "b"], max_length=16)
    whole = Tokenizer.from_file(str(minilm / "tokenizer.json"))
    whole.enable_truncation(16)
    whole.no_padding()
    texts = [
        "short",
        " ".join(f"word{i}" for i in range(500)),
        "\t\n " + "un-believ-able! " * 60,
        "\x00\x01 " * 40 + "the words that count come after those that vanish " * 3,
        "x" * 5000,
        "a\x1cb " * 40,
        "中文字符" * 30 + " " + "tail " * 50,
    ]
    for text in texts:
        ids = task.encode([text])["input_ids"][0]
        assert ids[: task.lengths([text])[0]].tolist() == whole.encode(text).ids
    together = task.encode(texts)["input_ids"]
    assert [row[row != 0].tolist() for row in together] == [
        [token for token in whole.encode(text).ids if token != 0] for text in texts
    ]
