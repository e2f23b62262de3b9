from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    BertForMaskedLM,
    GPT2LMHeadModel,
    ResNetConfig,
    ResNetForImageClassification,
    ViTConfig,
    ViTForImageClassification,
)

from equipoise.errors import ModelError
from equipoise.training.examples import Examples
from equipoise.training.initial_weights import check_weights, load_weights
from equipoise.training.job import TrainingJob

SEQUENCES = "AutoModelForSequenceClassification"
IMAGES = "AutoModelForImageClassification"
CAUSAL = "AutoModelForCausalLM"


def save_vit(folder: Path, labels: int) -> None:
    config = ViTConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=8,
        patch_size=4,
        num_labels=labels,
    )
    ViTForImageClassification(config).save_pretrained(folder)


def save_resnet(folder: Path, labels: int) -> None:
    config = ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1], layer_type="basic", num_labels=labels
    )
    ResNetForImageClassification(config).save_pretrained(folder)


def rewrite(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the weights of a model folder."""
    state = load_file(folder / "model.safetensors")
    change(state)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.fixture
def copied(tiny_classifier: Path, tmp_path: Path) -> Path:
    """The BERT with a head of three labels, in a folder of its own."""
    folder = tmp_path / "copied"
    shutil.copytree(tiny_classifier, folder)
    return folder


@pytest.mark.parametrize("labels", [2, 3, 5])
def test_a_bert_gets_a_head_of_the_size_asked_for_and_keeps_its_body(
    tiny_classifier: Path, capfd: pytest.CaptureFixture[str], labels: int
) -> None:
    stored = load_file(tiny_classifier / "model.safetensors")
    check_weights(tiny_classifier, SEQUENCES, labels)
    model = load_weights(tiny_classifier, SEQUENCES, labels)
    assert model.config.num_labels == labels
    state = model.state_dict()
    assert state["classifier.weight"].shape == (labels, 32)
    assert state["classifier.bias"].shape == (labels,)
    body = [name for name in state if name.startswith("bert.")]
    assert len(body) == len(stored) - 2
    assert all(torch.equal(state[name], stored[name]) for name in body)
    # A head of the same size is kept; another is drawn anew.
    assert torch.equal(state["classifier.weight"], stored["classifier.weight"]) is (labels == 3)
    assert torch.isfinite(state["classifier.weight"]).all()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("save", [save_vit, save_resnet])
def test_an_image_model_of_a_thousand_classes_gets_a_head_of_ten(
    save: Callable[[Path, int], None], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    save(tmp_path, 1000)
    capfd.readouterr()
    check_weights(tmp_path, IMAGES, 10)
    model = load_weights(tmp_path, IMAGES, 10).eval()
    whole = load_weights(tmp_path, IMAGES, None).eval()
    assert capfd.readouterr() == ("", "")
    pixels = torch.rand(2, 3, 8, 8)
    with torch.inference_mode():
        assert model(pixel_values=pixels).logits.shape == (2, 10)
        torch.testing.assert_close(
            model.base_model(pixel_values=pixels).last_hidden_state,
            whole.base_model(pixel_values=pixels).last_hidden_state,
        )


def test_the_new_head_follows_the_seed(tiny_classifier: Path) -> None:
    heads = []
    for seed in (1, 1, 2):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            heads.append(load_weights(tiny_classifier, SEQUENCES, 5).classifier.weight)
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])


def test_a_model_that_filled_in_words_starts_with_a_new_pooler(tiny_bert: Path, tmp_path: Path) -> None:
    config = BertConfig.from_pretrained(tiny_bert)
    BertForMaskedLM(config).save_pretrained(tmp_path)
    assert not any("pooler" in name for name in load_file(tmp_path / "model.safetensors"))
    check_weights(tmp_path, SEQUENCES, 4)
    assert load_weights(tmp_path, SEQUENCES, 4).bert.pooler.dense.weight.shape == (32, 32)


@pytest.mark.parametrize("labels", [None, 3, 5])
def test_weights_missing_from_the_body_are_refused(copied: Path, labels: int | None) -> None:
    rewrite(copied, lambda state: state.pop("bert.encoder.layer.1.output.dense.weight"))
    for refuse in (check_weights, load_weights):
        with pytest.raises(ModelError, match=r"no bert\.encoder\.layer\.1\.output\.dense\.weight") as caught:
            refuse(copied, SEQUENCES, labels)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("labels", [None, 3, 5])
def test_a_body_of_another_size_than_its_config_is_refused(copied: Path, labels: int | None) -> None:
    config = json.loads((copied / "config.json").read_text())
    config["intermediate_size"] = 48
    (copied / "config.json").write_text(json.dumps(config))
    for refuse in (check_weights, load_weights):
        with pytest.raises(
            ModelError, match=r"layer\.0\.intermediate\.dense\.bias is 64 in model\.safetensors and 48 by"
        ) as caught:
            refuse(copied, SEQUENCES, labels)
        assert "\n" not in str(caught.value)


def test_a_head_that_does_not_fit_the_config_is_refused_where_none_is_asked_for(copied: Path) -> None:
    config = json.loads((copied / "config.json").read_text())
    del config["id2label"], config["label2id"]
    (copied / "config.json").write_text(json.dumps(config))
    for refuse in (check_weights, load_weights):
        with pytest.raises(ModelError, match=r"classifier\.bias is 3 in model\.safetensors and 2 by"):
            refuse(copied, SEQUENCES, None)


def test_a_model_of_another_family_is_refused_by_name(tmp_path: Path) -> None:
    save_vit(tmp_path, 4)
    with pytest.raises(ModelError, match=f"knows it as no {SEQUENCES}"):
        check_weights(tmp_path, SEQUENCES, 4)


def test_damaged_weights_are_refused_before_any_is_read(copied: Path) -> None:
    content = (copied / "model.safetensors").read_bytes()
    (copied / "model.safetensors").write_bytes(content[: len(content) // 2])
    with pytest.raises(ModelError, match="cannot be read") as caught:
        check_weights(copied, SEQUENCES, 3)
    assert "\n" not in str(caught.value)


def test_the_check_holds_no_weight(tiny_classifier: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the concrete class is given has sizes alone."""
    seen: list[Any] = []
    kind: Any = type(AutoModelForSequenceClassification.from_pretrained(tiny_classifier))
    original = kind.from_pretrained.__func__

    def watch(cls: Any, *arguments: Any, **options: Any) -> Any:
        model, report = original(cls, *arguments, **options)
        seen.extend([*options["state_dict"].values(), *model.parameters()])
        return model, report

    monkeypatch.setattr(kind, "from_pretrained", classmethod(watch))
    check_weights(tiny_classifier, SEQUENCES, 7)
    assert len(seen) > 60
    assert all(tensor.is_meta for tensor in seen)


@pytest.fixture
def shards(tiny_gpt2: Path, tmp_path: Path) -> Path:
    """The tiny GPT-2 in shards."""
    GPT2LMHeadModel.from_pretrained(tiny_gpt2).save_pretrained(tmp_path, max_shard_size="40KB")
    assert not (tmp_path / "model.safetensors").exists()
    return tmp_path


def test_shards_are_checked_and_read_like_one_file(tiny_gpt2: Path, shards: Path) -> None:
    check_weights(shards, CAUSAL, None)
    whole = load_weights(tiny_gpt2, CAUSAL, None).state_dict()
    parts = load_weights(shards, CAUSAL, None).state_dict()
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_a_shard_without_a_weight_and_a_damaged_one_are_refused(shards: Path) -> None:
    index = json.loads((shards / "model.safetensors.index.json").read_text())
    name = "transformer.h.1.mlp.c_fc.weight"
    shard = shards / index["weight_map"].pop(name)
    state = load_file(shard)
    del state[name]
    save_file(state, shard, metadata={"format": "pt"})
    (shards / "model.safetensors.index.json").write_text(json.dumps(index))
    for refuse in (check_weights, load_weights):
        with pytest.raises(
            ModelError, match=r"no transformer\.h\.1\.mlp\.c_fc\.weight in the shards of"
        ) as caught:
            refuse(shards, CAUSAL, None)
        assert "\n" not in str(caught.value)
    shard.write_bytes(shard.read_bytes()[:50])
    with pytest.raises(ModelError, match="cannot be read") as caught:
        check_weights(shards, CAUSAL, None)
    assert caught.value.value == str(shard)


def test_another_shard_makes_another_training(shards: Path) -> None:
    job = TrainingJob(
        title="a training",
        model_folder=str(shards),
        model_class=CAUSAL,
        labels=None,
        layers=None,
        freeze_embeddings=False,
        deepspeed={"train_micro_batch_size_per_gpu": 2},
        batch_size=2,
        total_steps=1,
        seed=0,
    )
    targets = np.zeros((2, 3), np.int64)
    rows = Examples({"input_ids": targets}, targets, np.array([3, 3]))
    first = job.digest(rows)
    assert job.digest(rows) == first
    last = sorted(shards.glob("model-*.safetensors"))[-1]
    os.utime(last, ns=(0, last.stat().st_mtime_ns + 1))
    assert job.digest(rows) != first
