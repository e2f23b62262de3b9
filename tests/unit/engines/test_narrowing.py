from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    LlamaForCausalLM,
    ViTConfig,
    ViTForImageClassification,
)

from equipoise.engines import open_engine
from equipoise.engines.narrowing import find_parts, keep_units, read_widths
from equipoise.engines.widths import STRUCTURE_FILE, Widths
from equipoise.errors import ModelError
from equipoise.training.initialization import load_initial_model, save_model

IDS = torch.tensor([[101, 2000, 3000, 102]])
SEQUENCES = "AutoModelForSequenceClassification"


@pytest.fixture
def bert(tiny_classifier: Path) -> Any:
    return load_initial_model(str(tiny_classifier), SEQUENCES, None, None).eval()


def logits(model: Any, **inputs: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        found: torch.Tensor = model(**(inputs or {"input_ids": IDS})).logits
    return found


def narrow(model: Any, heads: list[list[int]], neurons: list[list[int]]) -> None:
    for parts, kept_heads, kept_neurons in zip(find_parts(model), heads, neurons, strict=True):
        keep_units(parts, kept_heads, kept_neurons)


def silence(model: Any, heads: list[list[int]], neurons: list[list[int]]) -> None:
    """The same by zeros: what is left out gives nothing to the layers' outputs."""
    with torch.no_grad():
        for parts, kept_heads, kept_neurons in zip(find_parts(model), heads, neurons, strict=True):
            size = parts.joined.in_features // parts.heads
            for head in set(range(parts.heads)) - set(kept_heads):
                parts.joined.weight[:, head * size : (head + 1) * size] = 0
            for neuron in set(range(parts.ffn)) - set(kept_neurons):
                parts.contracting.weight[:, neuron] = 0


def test_a_narrowed_bert_answers_as_one_whose_other_units_are_silent(
    tiny_classifier: Path, bert: Any
) -> None:
    kept = [[1], [0, 1]], [list(range(0, 64, 3)), [5, 6, 63]]
    silent = load_initial_model(str(tiny_classifier), SEQUENCES, None, None).eval()
    whole = logits(silent)
    silence(silent, *kept)
    before = sum(p.numel() for p in bert.parameters())
    narrow(bert, *kept)
    torch.testing.assert_close(logits(bert), logits(silent), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(logits(bert), whole)
    # A head: 16 rows of three matrices and their biases, 16 columns of one. A neuron: two rows, a bias.
    lost = 1 * (4 * 16 * 32 + 3 * 16) + (64 - 22 + 64 - 3) * (2 * 32 + 1)
    assert before - sum(p.numel() for p in bert.parameters()) == lost
    assert read_widths(bert) == Widths(heads=(1, 2), ffn=(22, 3))


def test_what_the_config_cannot_say_is_read_back_from_the_record(bert: Any, tmp_path: Path) -> None:
    narrow(bert, [[1], [0, 1]], [[1, 2, 3], [0, 9]])
    save_model(bert, tmp_path)
    assert json.loads((tmp_path / STRUCTURE_FILE).read_text()) == {
        "format": 1,
        "heads": [1, 2],
        "ffn": [3, 2],
    }
    again = load_initial_model(str(tmp_path), SEQUENCES, None, None).eval()
    torch.testing.assert_close(logits(again), logits(bert))
    engine = open_engine("torch", tmp_path, "fp32")
    np.testing.assert_allclose(engine.run({"input_ids": IDS.numpy()})["logits"], logits(bert), atol=1e-6)


def test_one_ffn_width_for_all_layers_needs_nothing_but_transformers(bert: Any, tmp_path: Path) -> None:
    narrow(bert, [[0, 1], [0, 1]], [list(range(0, 64, 2)), list(range(32))])
    save_model(bert, tmp_path)
    assert not (tmp_path / STRUCTURE_FILE).exists()
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    assert plain.config.intermediate_size == 32
    torch.testing.assert_close(logits(plain), logits(bert))


def test_an_untouched_model_keeps_its_config(bert: Any, tmp_path: Path) -> None:
    before = bert.config.to_dict()
    save_model(bert, tmp_path)
    assert not (tmp_path / STRUCTURE_FILE).exists()
    assert bert.config.to_dict() == before


def test_heads_and_neurons_of_a_llama_go_with_their_shared_keys(tiny_llama: Path, tmp_path: Path) -> None:
    ids = torch.tensor([[3, 5, 8, 13]])
    model, silent = (
        load_initial_model(str(tiny_llama), "AutoModelForCausalLM", None, None).eval() for _ in "12"
    )
    kept = [[1], [0]], [list(range(20)), list(range(44, 64))]
    silence(silent, *kept)
    narrow(model, *kept)
    torch.testing.assert_close(
        logits(model, input_ids=ids), logits(silent, input_ids=ids), atol=1e-5, rtol=1e-5
    )
    with torch.inference_mode():
        first = model(input_ids=ids[:, :3], use_cache=True)
        then = model(input_ids=ids[:, 3:], cache=first.cache).logits
    torch.testing.assert_close(then[:, 0], logits(model, input_ids=ids)[:, 3], atol=1e-5, rtol=1e-5)
    save_model(model, tmp_path)
    # Of a Llama the config says the size of a head too.
    assert not (tmp_path / STRUCTURE_FILE).exists()
    plain = LlamaForCausalLM.from_pretrained(tmp_path).eval()
    assert (plain.config.num_attention_heads, plain.config.num_key_value_heads) == (2, 1)
    torch.testing.assert_close(logits(plain, input_ids=ids), logits(model, input_ids=ids))


def test_a_llama_with_layers_of_different_width_is_read_back(tiny_llama: Path, tmp_path: Path) -> None:
    ids = torch.tensor([[3, 5, 8, 13]])
    model: Any = load_initial_model(str(tiny_llama), "AutoModelForCausalLM", None, None).eval()
    narrow(model, [[1], [0, 1]], [list(range(20)), list(range(44, 64))])
    save_model(model, tmp_path)
    again = load_initial_model(str(tmp_path), "AutoModelForCausalLM", None, None).eval()
    torch.testing.assert_close(logits(again, input_ids=ids), logits(model, input_ids=ids))


def test_heads_and_neurons_of_a_vit(tmp_path: Path) -> None:
    config = ViTConfig(
        image_size=16,
        patch_size=8,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        ViTForImageClassification(config).save_pretrained(tmp_path / "whole")
        pixels = torch.randn(2, 3, 16, 16)
    name = "AutoModelForImageClassification"
    model, silent = (load_initial_model(str(tmp_path / "whole"), name, None, None).eval() for _ in "12")
    kept = [[1, 3], [0, 1]], [list(range(20)), list(range(28, 48))]
    silence(silent, *kept)
    narrow(model, *kept)
    torch.testing.assert_close(
        logits(model, pixel_values=pixels), logits(silent, pixel_values=pixels), atol=1e-5, rtol=1e-5
    )
    save_model(model, tmp_path / "narrow")
    again = load_initial_model(str(tmp_path / "narrow"), name, None, None).eval()
    torch.testing.assert_close(logits(again, pixel_values=pixels), logits(model, pixel_values=pixels))
    if not (tmp_path / "narrow" / STRUCTURE_FILE).exists():
        plain = AutoModelForImageClassification.from_pretrained(tmp_path / "narrow").eval()
        torch.testing.assert_close(logits(plain, pixel_values=pixels), logits(model, pixel_values=pixels))


def test_a_model_of_another_build_is_refused() -> None:
    config = DistilBertConfig(vocab_size=50, dim=16, n_layers=2, n_heads=2, hidden_dim=16)
    with pytest.raises(ModelError, match=r"not known|no layers"):
        find_parts(DistilBertForSequenceClassification(config))


@pytest.mark.parametrize(
    "record",
    [
        "",
        "{}",
        '{"format": 2, "heads": [1, 2], "ffn": [3, 2]}',
        '{"format": 1, "heads": [1], "ffn": [3]}',
        '{"format": 1, "heads": [1, 2], "ffn": [3, 65]}',
        '{"format": 1, "heads": [0, 2], "ffn": [3, 2]}',
        '{"format": 1, "heads": [2, 2], "ffn": [3, 2]}',
        '{"format": 1, "heads": [1, 2], "ffn": [3, 2], "code": "import os"}',
    ],
)
def test_a_damaged_record_is_one_line(bert: Any, tmp_path: Path, record: str) -> None:
    narrow(bert, [[1], [0, 1]], [[1, 2, 3], [0, 9]])
    save_model(bert, tmp_path)
    (tmp_path / STRUCTURE_FILE).write_text(record)
    with pytest.raises(ModelError) as caught:
        load_initial_model(str(tmp_path), SEQUENCES, None, None)
    assert str(tmp_path / STRUCTURE_FILE) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_weights_that_lack_a_matrix_are_refused(bert: Any, tmp_path: Path) -> None:
    narrow(bert, [[1], [0, 1]], [[1, 2, 3], [0, 9]])
    save_model(bert, tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["classifier.weight"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"not those of config\.json"):
        open_engine("torch", tmp_path, "fp32")


def test_the_name_of_the_class_is_kept(bert: Any, tmp_path: Path) -> None:
    narrow(bert, [[1], [0, 1]], [[1, 2, 3], [0, 9]])
    save_model(bert, tmp_path)
    assert isinstance(load_initial_model(str(tmp_path), SEQUENCES, None, None), BertForSequenceClassification)
