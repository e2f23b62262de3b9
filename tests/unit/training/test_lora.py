from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from equipoise.config.training import LoraConfig
from equipoise.errors import ConfigError
from equipoise.training.initialization import load_initial_model
from equipoise.training.lora import add_adapters, merge_adapters

CAUSAL = "AutoModelForCausalLM"
IDS = torch.tensor([[3, 5, 8, 13]])


def adapted(folder: Path, **settings: Any) -> Any:
    """The model with adapters whose second halves are no longer zero."""
    model = load_initial_model(str(folder), CAUSAL, None, None)
    add_adapters(model, LoraConfig(**settings).model_dump())
    with torch.random.fork_rng():
        torch.manual_seed(3)
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.data.normal_(std=0.1)
    return model.eval()


def test_only_the_adapters_are_trained_and_they_start_as_nothing(tiny_llama: Path) -> None:
    model = load_initial_model(str(tiny_llama), CAUSAL, None, None)
    with torch.inference_mode():
        before = model(input_ids=IDS).logits
    add_adapters(model, LoraConfig(rank=4).model_dump())
    with torch.inference_mode():
        torch.testing.assert_close(model(input_ids=IDS).logits, before)
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    # q, k, v, o, gate, up and down of two layers, two halves each; the head has none.
    assert len(trained) == 28
    assert all("lora_" in name for name in trained)


def test_merged_weights_load_as_the_plain_model_and_answer_alike(tiny_llama: Path, tmp_path: Path) -> None:
    model = adapted(tiny_llama, rank=4, alpha=8)
    with torch.inference_mode():
        expected = model(input_ids=IDS).logits
    state = merge_adapters(model)
    original = load_file(tiny_llama / "model.safetensors")
    assert state.keys() == original.keys()
    changed = {name for name in state if not torch.equal(state[name], original[name])}
    assert changed == {name for name in original if "proj" in name}
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "config.json").write_bytes((tiny_llama / "config.json").read_bytes())
    plain = load_initial_model(str(tmp_path), CAUSAL, None, None).eval()
    with torch.inference_mode():
        torch.testing.assert_close(plain(input_ids=IDS).logits, expected, atol=1e-4, rtol=1e-4)


def test_named_layers_alone_get_adapters(tiny_llama: Path) -> None:
    state = merge_adapters(adapted(tiny_llama, target_modules=("q_proj",)))
    original = load_file(tiny_llama / "model.safetensors")
    changed = {name for name in state if not torch.equal(state[name], original[name])}
    assert changed == {f"model.layers.{layer}.self_attn.q_proj.weight" for layer in range(2)}


def test_a_new_head_is_trained_beside_the_adapters(tiny_bert: Path) -> None:
    model = load_initial_model(str(tiny_bert), "AutoModelForSequenceClassification", 3, None)
    add_adapters(model, LoraConfig(target_modules=("query",)).model_dump(), new_head=True)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert {"classifier.weight", "classifier.bias"} <= trained
    assert all("lora_" in name or "classifier" in name for name in trained)


def test_layers_that_are_not_there_are_refused(tiny_llama: Path) -> None:
    model = load_initial_model(str(tiny_llama), CAUSAL, None, None)
    with pytest.raises(ConfigError, match=r"training\.lora\.target_modules.*'query'"):
        add_adapters(model, LoraConfig(target_modules=("query",)).model_dump())


def test_adapters_of_a_gpt2_merge_into_its_transposed_layers(tiny_gpt2: Path, tmp_path: Path) -> None:
    model = adapted(tiny_gpt2, rank=4, alpha=8)
    with torch.inference_mode():
        expected = model(input_ids=IDS).logits
    state = merge_adapters(model)
    original = load_file(tiny_gpt2 / "model.safetensors")
    assert state.keys() == original.keys()
    changed = {name for name in state if not torch.equal(state[name], original[name])}
    assert changed == {name for name in original if ".c_" in name and name.endswith("weight")}
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "config.json").write_bytes((tiny_gpt2 / "config.json").read_bytes())
    plain = load_initial_model(str(tmp_path), CAUSAL, None, None).eval()
    with torch.inference_mode():
        torch.testing.assert_close(plain(input_ids=IDS).logits, expected, atol=1e-4, rtol=1e-4)
