from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import ResNetConfig, ResNetForImageClassification

from equipoise.compression.sparsity import sparsify
from equipoise.training.held_zeros import hold_zeros, sparse_weights
from equipoise.training.initialization import load_initial_model


def classifier(folder: Path) -> Any:
    return load_initial_model(str(folder), "AutoModelForSequenceClassification", None, None)


@settings(max_examples=10)
@given(share=st.floats(0, 0.99))
def test_the_smallest_weights_of_each_matrix_are_zero(tiny_classifier: Path, share: float) -> None:
    model, before = classifier(tiny_classifier), classifier(tiny_classifier)
    sparsify(model, share)
    whole = sparse_weights(before)
    assert len(whole) == 2 * 6 + 1
    for name, weight in sparse_weights(model).items():
        gone = weight == 0
        assert int(gone.sum()) == int(share * weight.numel())
        kept = weight[~gone]
        assert torch.equal(kept, whole[name][~gone])
        if gone.any() and len(kept):
            assert whole[name][gone].abs().max() <= kept.abs().min()
    assert torch.equal(model.classifier.weight, before.classifier.weight)


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_zeros_stay_while_the_others_learn(tiny_classifier: Path, decay: float) -> None:
    model = classifier(tiny_classifier)
    sparsify(model, 0.6)
    zeros = {name: weight == 0 for name, weight in sparse_weights(model).items()}
    start = {name: weight.detach().clone() for name, weight in sparse_weights(model).items()}
    hold_zeros(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=decay)
    for step in range(3):
        ids = torch.arange(8).reshape(2, 4) + step
        model(input_ids=ids, labels=torch.tensor([0, 2])).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    for name, weight in sparse_weights(model).items():
        assert torch.equal(weight == 0, zeros[name])
        assert not torch.equal(weight, start[name])


def test_convolutions_are_sparse_too() -> None:
    config = ResNetConfig(num_channels=1, embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], num_labels=3)
    model = ResNetForImageClassification(config)
    sparsify(model, 0.5)
    for weight in sparse_weights(model).values():
        assert weight.ndim == 4
        assert float((weight == 0).float().mean()) == pytest.approx(0.5, abs=0.01)
