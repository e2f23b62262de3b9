from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    GPT2LMHeadModel,
    LlamaForCausalLM,
)

from equipoise.compression.structure import read_layers
from equipoise.errors import ModelError
from equipoise.training.initial_weights import check_weights
from equipoise.training.initialization import (
    freeze_embeddings,
    keep_layers,
    load_initial_model,
)

SEQUENCES = "AutoModelForSequenceClassification"


@pytest.fixture(scope="module")
def deep_classifier(tmp_path_factory: pytest.TempPathFactory, tiny_classifier: Path) -> Path:
    """The tiny classifier with four different layers."""
    config = BertForSequenceClassification.from_pretrained(tiny_classifier).config
    config.num_hidden_layers = 4
    folder = tmp_path_factory.mktemp("deep")
    with torch.random.fork_rng():
        torch.manual_seed(1)
        BertForSequenceClassification(config).save_pretrained(folder)
    return folder


def layer_weight(model: torch.nn.Module, index: int) -> torch.Tensor:
    return model.state_dict()[f"bert.encoder.layer.{index}.output.dense.weight"]


@pytest.mark.parametrize("layers", [(0,), (3,), (0, 3), (1, 2, 3), (0, 1, 2, 3)])
def test_the_kept_layers_keep_their_weights(deep_classifier: Path, layers: tuple[int, ...]) -> None:
    weights = load_file(deep_classifier / "model.safetensors")
    model = load_initial_model(str(deep_classifier), SEQUENCES, None, layers)
    assert model.config.num_hidden_layers == len(layers)
    state = model.state_dict()
    for new, old in enumerate(layers):
        for name in (key for key in state if f".layer.{new}." in key):
            source = name.replace(f".layer.{new}.", f".layer.{old}.")
            assert torch.equal(state[name], weights[source]), name
    untouched = [name for name in state if ".layer." not in name]
    assert any(name.startswith("classifier") for name in untouched)
    assert all(torch.equal(state[name], weights[name]) for name in untouched)


def test_a_student_runs_and_survives_saving(deep_classifier: Path, tmp_path: Path) -> None:
    student = load_initial_model(str(deep_classifier), SEQUENCES, None, (0, 2)).eval()
    student.save_pretrained(tmp_path)
    again = load_initial_model(str(tmp_path), SEQUENCES, None, None).eval()
    assert read_layers(tmp_path)[0] == 2
    ids = torch.tensor([[101, 2000, 3000, 102]])
    with torch.inference_mode():
        torch.testing.assert_close(student(input_ids=ids).logits, again(input_ids=ids).logits)


def test_no_layers_named_keeps_all(deep_classifier: Path) -> None:
    assert load_initial_model(str(deep_classifier), SEQUENCES, None, None).config.num_hidden_layers == 4
    assert read_layers(deep_classifier)[0] == 4


def test_a_layer_that_is_not_there_is_named(deep_classifier: Path) -> None:
    with pytest.raises(ModelError, match="has 4 layers") as caught:
        load_initial_model(str(deep_classifier), SEQUENCES, None, (0, 4, 9))
    assert caught.value.value == [4, 9]
    assert "0 to 3" in caught.value.remedy


def test_a_model_of_another_build_is_refused() -> None:
    config = DistilBertConfig(vocab_size=50, dim=16, n_layers=2, n_heads=2, hidden_dim=16)
    with pytest.raises(ModelError, match="no layers that are known"):
        keep_layers(DistilBertForSequenceClassification(config), (0,))


def test_a_new_head_has_the_size_asked_for_and_the_old_body(tiny_bert: Path) -> None:
    model = load_initial_model(str(tiny_bert), SEQUENCES, 7, None)
    assert model.classifier.weight.shape[0] == 7
    weights = load_file(tiny_bert / "model.safetensors")
    assert torch.equal(
        model.state_dict()["bert.embeddings.word_embeddings.weight"],
        weights["embeddings.word_embeddings.weight"],
    )


def test_weights_are_loaded_in_fp32_whatever_they_are_stored_in(
    tiny_classifier: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_classifier, tmp_path, dirs_exist_ok=True)
    BertForSequenceClassification.from_pretrained(tiny_classifier, dtype=torch.bfloat16).save_pretrained(
        tmp_path
    )
    model = load_initial_model(str(tmp_path), SEQUENCES, None, None)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_frozen_embeddings_are_all_of_the_tables_and_nothing_else(tiny_classifier: Path) -> None:
    model = load_initial_model(str(tiny_classifier), SEQUENCES, None, None)
    frozen = freeze_embeddings(model)
    assert "bert.embeddings.word_embeddings.weight" in frozen
    assert all(name.startswith("bert.embeddings.") for name in frozen)
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad is (name not in frozen)


def written_at_once_and_in_two(model: Any, ids: torch.Tensor) -> torch.Tensor:
    """Logits of four tokens; the last one's are the same where the first three are in the cache."""
    with torch.inference_mode():
        at_once: torch.Tensor = model(input_ids=ids).logits
        first = model(input_ids=ids[:, :3], use_cache=True)
        then = model(input_ids=ids[:, 3:], cache=first.cache).logits
    torch.testing.assert_close(then[:, 0], at_once[:, 3])
    return at_once


def test_layers_of_a_llama_are_kept_with_their_weights_and_their_places(
    tiny_llama: Path, tmp_path: Path
) -> None:
    config = LlamaForCausalLM.from_pretrained(tiny_llama).config
    config.num_hidden_layers = 4
    with torch.random.fork_rng():
        torch.manual_seed(1)
        LlamaForCausalLM(config).save_pretrained(tmp_path / "deep")
    weights = load_file(tmp_path / "deep" / "model.safetensors")
    model = load_initial_model(str(tmp_path / "deep"), "AutoModelForCausalLM", None, (1, 3)).eval()
    state = model.state_dict()
    for new, old in ((0, 1), (1, 3)):
        name = "model.layers.{}.mlp.up_proj.weight"
        assert torch.equal(state[name.format(new)], weights[name.format(old)])
    ids = torch.tensor([[3, 5, 8, 13]])
    at_once = written_at_once_and_in_two(model, ids)
    model.save_pretrained(tmp_path / "student")
    again = load_initial_model(str(tmp_path / "student"), "AutoModelForCausalLM", None, None).eval()
    with torch.inference_mode():
        torch.testing.assert_close(again(input_ids=ids).logits, at_once)


def test_the_embeddings_of_a_llama_can_be_frozen(tiny_llama: Path) -> None:
    model = load_initial_model(str(tiny_llama), "AutoModelForCausalLM", None, None)
    assert freeze_embeddings(model) == ["model.embed_tokens.weight"]
    assert sum(p.requires_grad for p in model.parameters()) == len(list(model.parameters())) - 1


@pytest.mark.parametrize("stored", ["whole", "body"])
def test_layers_of_a_gpt2_are_kept_with_their_weights_and_their_places(
    tiny_gpt2: Path, tmp_path: Path, stored: str
) -> None:
    """The hub's GPT-2 holds the body alone, its names without `transformer.`."""
    if stored == "body":
        GPT2LMHeadModel.from_pretrained(tiny_gpt2).transformer.save_pretrained(tmp_path / "base")
    else:
        shutil.copytree(tiny_gpt2, tmp_path / "base")
    check_weights(tmp_path / "base", "AutoModelForCausalLM", None)
    weights = load_file(tiny_gpt2 / "model.safetensors")
    model = load_initial_model(str(tmp_path / "base"), "AutoModelForCausalLM", None, (0, 2)).eval()
    state = model.state_dict()
    for new, old in ((0, 0), (1, 2)):
        name = "transformer.h.{}.mlp.c_fc.weight"
        assert torch.equal(state[name.format(new)], weights[name.format(old)])
    ids = torch.tensor([[3, 5, 8, 13]])
    at_once = written_at_once_and_in_two(model, ids)
    model.save_pretrained(tmp_path / "student")
    assert read_layers(tmp_path / "student") == (2, ())
    again = load_initial_model(str(tmp_path / "student"), "AutoModelForCausalLM", None, None).eval()
    with torch.inference_mode():
        torch.testing.assert_close(again(input_ids=ids).logits, at_once)
    assert freeze_embeddings(again) == ["transformer.wte.weight"]
