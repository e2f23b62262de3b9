"""`equipoise predict` over rows without labels, of each family that has rows of its own kind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from equipoise.bundle import Bundle, write_bundle
from equipoise.config.model import ModelConfig
from equipoise.engines import Predictor, open_engine
from equipoise.tasks.image_classification import ImageClassification
from equipoise.tasks.token_classification import TokenClassification, split_words

# Each is a command that starts Ray; the sources have tests of their own.
pytestmark = pytest.mark.slow

TEXTS = ["Ms Ames flew to Oslo.", "The parcel is late!", "refund: 30 euros"]
PAIRS = [("can you", " tell me about my parcel"), ("the flight", " is late")]


def open_bundle(bundle: Bundle) -> Predictor:
    return Predictor(bundle.load_task(), open_engine("torch", bundle.model_folder, "fp32"))


def predict(runs: Any, bundle: Bundle, data: Path, out: Path, *options: str) -> tuple[list[Any], list[Any]]:
    """What stands in the parts, and in the folder of bad rows."""
    done = runs.call("predict", str(bundle.folder), str(data), str(out), "--workers", "1", *options)
    assert done.returncode == 0, done.stderr

    def lines(folder: Path) -> list[Any]:
        files = sorted(folder.iterdir()) if folder.is_dir() else []
        return [json.loads(line) for file in files for line in file.read_text().splitlines()]

    return lines(out / "parts"), lines(out / "bad")


@pytest.fixture(scope="module")
def tagger(tmp_path_factory: pytest.TempPathFactory, minilm: Path) -> Bundle:
    import torch
    from transformers import BertConfig, BertForTokenClassification

    folder = tmp_path_factory.mktemp("tagger")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = BertConfig(
            hidden_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=64,
            num_labels=3,
            initializer_range=0.3,
        )
        BertForTokenClassification(config).save_pretrained(folder / "model", safe_serialization=True)
    (folder / "model" / "tokenizer.json").write_bytes((minilm / "tokenizer.json").read_bytes())
    task = TokenClassification.create(
        folder / "model", ("O", "B-PER", "B-LOC"), ModelConfig(teacher=str(folder), max_length=32)
    )
    return write(folder, task)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    import torch
    from transformers import ResNetConfig, ResNetForImageClassification

    folder = tmp_path_factory.mktemp("classifier")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = ResNetConfig(
            num_channels=1, embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], num_labels=3
        )
        ResNetForImageClassification(config).eval().save_pretrained(folder / "model")
    return write(folder, ImageClassification(("a", "b", "c"), 12, 1, [0.5], [0.5]))


def write(folder: Path, task: Any) -> Bundle:
    return write_bundle(
        folder / "bundle",
        name="tiny",
        task=task,
        engine="torch",
        precision="fp32",
        model_folder=folder / "model",
        candidate={},
    )


def test_a_tagger_takes_texts_and_words_without_tags(runs: Any, tagger: Bundle, tmp_path: Path) -> None:
    table = tmp_path / "in.csv"
    table.write_text("id,body\n" + "".join(f"{row},{text}\n" for row, text in enumerate(TEXTS)))
    answers, bad = predict(runs, tagger, table, tmp_path / "texts", "--text-column", "body")
    predictor = open_bundle(tagger)
    # The task cuts a text into words, as it does for a client that sends one.
    expected = predictor.predict([predictor.task.from_text(text) for text in TEXTS])
    assert [answer["tags"] for answer in answers] == [answer["tags"] for answer in expected]
    assert [len(answer["tags"]) for answer in answers] == [len(split_words(text)[0]) for text in TEXTS]
    found = [
        (entity["text"], TEXTS[a["row"]][entity["start"] : entity["end"]])
        for a in answers
        for entity in a["entities"]
    ]
    assert found
    assert all(said == cut for said, cut in found)
    assert bad == []

    sentences = [split_words(text)[0] for text in TEXTS]
    words = tmp_path / "in.conll"
    words.write_bytes(b"caf\xe9\n\n" + "\n\n".join("\n".join(found) for found in sentences).encode())
    answers, bad = predict(runs, tagger, words, tmp_path / "words")
    assert [answer["tags"] for answer in answers] == [answer["tags"] for answer in expected]
    assert [(row["where"], row["reason"][:18]) for row in bad] == [(f"{words}:1", "is not UTF-8 text:")]


def test_images_need_no_folder_a_label_and_a_broken_one_stops_nothing(
    runs: Any, classifier: Bundle, tmp_path: Path
) -> None:
    from PIL import Image

    folder = tmp_path / "images"
    folder.mkdir()
    pixels = np.random.default_rng(1).integers(0, 256, (5, 12, 12), dtype=np.uint8)
    for number, image in enumerate(pixels):
        Image.fromarray(image).save(folder / f"{number}.png")
    (folder / "2.png").write_bytes((folder / "2.png").read_bytes()[:60])
    answers, [bad] = predict(runs, classifier, folder, tmp_path / "out")
    assert bad["where"] == f"{folder}/2.png"
    assert bad["reason"].startswith("cannot be decoded")
    expected = open_bundle(classifier).predict([pixels[number] for number in (0, 1, 3, 4)])
    assert [answer["row"] for answer in answers] == [0, 1, 2, 3]
    for answer, wanted in zip(answers, expected, strict=True):
        assert answer["scores"] == pytest.approx(wanted["scores"], abs=1e-4)


def test_a_language_model_takes_prompts_from_a_column(
    runs: Any, writers: dict[str, Bundle], tmp_path: Path
) -> None:
    table = tmp_path / "in.jsonl"
    table.write_text("".join(json.dumps({"ask": ask, "say": say}) + "\n" for ask, say in PAIRS))
    columns = ("--text-column", "say", "--prompt-column", "ask")
    answers, bad = predict(runs, writers["torch"], table, tmp_path / "out", *columns)
    expected = open_bundle(writers["torch"]).predict(PAIRS)
    for answer, wanted in zip(answers, expected, strict=True):
        assert answer["tokens"] == wanted["tokens"]
        assert answer["log_likelihood"] == pytest.approx(wanted["log_likelihood"], rel=1e-4)
    assert bad == []
