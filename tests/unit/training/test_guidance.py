from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from equipoise.config.training import DistillationConfig
from equipoise.errors import ConfigError
from equipoise.training.examples import Examples, take_batch
from equipoise.training.guidance import (
    Guidance,
    check_guidance,
    count_passes,
    find_guidance,
    plan_guidance,
)
from equipoise.training.guide import Guide, hidden_loss, relation_loss
from equipoise.training.inside import find_projections, is_causal
from equipoise.training.ragged import Ragged


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def bert(width: int, layers: int, seed: int = 0) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = transformers.BertConfig(
            vocab_size=50,
            hidden_size=width,
            num_hidden_layers=layers,
            num_attention_heads=2,
            intermediate_size=width,
            num_labels=3,
        )
        return transformers.BertForSequenceClassification(config).eval()


INPUTS = {
    "input_ids": torch.tensor([[1, 2, 3, 4], [5, 6, 0, 0]]),
    "attention_mask": torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]]),
}


def test_relations_of_the_same_projections_are_equal_and_of_others_are_not() -> None:
    projected = draw(2, 5, 8)
    assert float(relation_loss(projected, projected, None, 4)) == pytest.approx(0, abs=1e-6)
    # Turning every vector alike changes no product.
    turn = torch.linalg.qr(draw(8, 8, seed=3)).Q
    assert float(relation_loss(projected @ turn, projected, None, 1)) == pytest.approx(0, abs=1e-5)
    assert float(relation_loss(draw(2, 5, 8, seed=1), projected, None, 4)) > 0.1


def test_relations_take_other_widths_and_leave_padding_out() -> None:
    mask = torch.tensor([[1, 1, 1, 0]])
    student, teacher = draw(1, 4, 12), draw(1, 4, 24, seed=1)
    loss = relation_loss(student, teacher, mask, 6)
    assert float(loss) > 0
    student[:, 3], teacher[:, 3] = 100.0, -100.0
    torch.testing.assert_close(relation_loss(student, teacher, mask, 6), loss)
    alone = relation_loss(student[:, :3], teacher[:, :3], None, 6)
    torch.testing.assert_close(loss, alone)


def test_hidden_states_of_another_width_point_to_relations() -> None:
    states = draw(2, 3, 4)
    assert float(hidden_loss(states, states + 2, None)) == pytest.approx(4)
    with pytest.raises(ConfigError, match="relation_weight"):
        hidden_loss(states, draw(2, 3, 8), None)


@pytest.mark.parametrize("weights", [{"hidden_weight": 1.0}, {"relation_weight": 1.0}])
def test_a_guided_student_comes_to_its_teacher(weights: dict[str, float]) -> None:
    width = 8 if "hidden_weight" in weights else 16
    student, teacher = bert(width, 1), bert(8, 2, seed=1)
    guide = Guide(Guidance("", ((0, 1),), relation_heads=2, **weights), student, teacher)
    optimizer = torch.optim.Adam(student.parameters(), lr=1e-2)
    losses = []
    for _ in range(30):
        loss = guide.loss(INPUTS, student(**INPUTS, **guide.options), INPUTS["attention_mask"])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] / 3
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_layers_are_paired_by_the_map() -> None:
    def pairs(layer_map: Any, own: int = 2) -> Any:
        settings = DistillationConfig(relation_weight=1, layer_map=layer_map)
        found = plan_guidance(settings, Path("teacher"), 6, range(own))
        return found.pairs

    assert find_guidance(DistillationConfig(), Path("teacher"), range(2)) is None
    assert pairs("last") == ((1, 5),)
    assert pairs("uniform") == ((0, 2), (1, 5))
    assert pairs("uniform", own=3) == ((0, 1), (1, 3), (2, 5))
    assert pairs([1, 4]) == ((0, 1), (1, 4))
    with pytest.raises(ConfigError, match="the teacher has 6 layers"):
        pairs([1, 6])


def test_the_teacher_goes_over_the_rows_once_for_each_new_layer(tmp_path: Path) -> None:
    bert(width=8, layers=6).config.save_pretrained(tmp_path)
    students = [(0, 1, 2), (0, 2, 5), (0, 5)]

    def passes(**changes: Any) -> int:
        return count_passes(DistillationConfig(**changes), tmp_path, students)

    assert passes() == 0
    assert passes(hidden_weight=1, states_gib=0) == 0
    # All are held to the last layer.
    assert passes(hidden_weight=1, layer_map="last") == 1
    # To layers 1, 3 and 5, the same again, then to 2 and 5.
    assert passes(hidden_weight=1, layer_map="uniform") == 2


@pytest.mark.parametrize(
    ("config", "kind", "count"),
    [
        (transformers.ViTConfig(num_hidden_layers=2), "AutoModelForImageClassification", 3),
        (transformers.LlamaConfig(num_hidden_layers=2, vocab_size=99), "AutoModelForCausalLM", 3),
        (transformers.GPT2Config(n_layer=2), "AutoModelForCausalLM", 1),
        (transformers.DistilBertConfig(n_layers=2), "AutoModelForSequenceClassification", 3),
    ],
    ids=["vit", "llama", "gpt2", "distilbert"],
)
def test_projections_of_the_families_are_found(config: Any, kind: str, count: int, tmp_path: Path) -> None:
    with torch.device("meta"):
        model = getattr(transformers, kind).from_config(config)
    assert [len(layer) for layer in find_projections(model)] == [count] * 2
    assert is_causal(model) is (kind == "AutoModelForCausalLM")
    config.save_pretrained(tmp_path)
    check_guidance(DistillationConfig(relation_weight=1, relation_heads=8), tmp_path, kind)
    with pytest.raises(ConfigError, match="does not divide the width"):
        check_guidance(DistillationConfig(relation_weight=1, relation_heads=7), tmp_path, kind)


def test_a_model_without_attention_is_refused(tmp_path: Path) -> None:
    transformers.ResNetConfig(depths=[1, 1], hidden_sizes=[8, 16], embedding_size=8).save_pretrained(tmp_path)
    kind = "AutoModelForImageClassification"
    with pytest.raises(ConfigError, match="a resnet has no attention") as caught:
        check_guidance(DistillationConfig(relation_weight=1), tmp_path, kind)
    assert caught.value.where == "distillation.relation_weight"
    check_guidance(DistillationConfig(hidden_weight=1), tmp_path, kind)


def causal(kind: str, width: int, layers: int, seed: int = 0) -> Any:
    """A language model of a wide spread, so that each position's states differ."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config: Any = (
            transformers.GPT2Config(
                vocab_size=50, n_embd=width, n_layer=layers, n_head=2, bos_token_id=1, eos_token_id=0
            )
            if kind == "gpt2"
            else transformers.LlamaConfig(
                vocab_size=50,
                hidden_size=width,
                intermediate_size=width,
                num_hidden_layers=layers,
                num_attention_heads=4,
                num_key_value_heads=2,
            )
        )
        config.initializer_range = 0.5
        return transformers.AutoModelForCausalLM.from_config(config).eval()


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
@pytest.mark.parametrize(
    "weights", [{"hidden_weight": 1.0}, {"relation_weight": 1.0}], ids=["hidden", "relations"]
)
def test_padding_of_a_language_model_changes_no_loss(kind: str, weights: dict[str, float]) -> None:
    """It is given no attention mask: the rows' lengths alone say what is padding."""
    student, teacher = causal(kind, 16, 1), causal(kind, 16, 2, seed=1)
    guide = Guide(Guidance("", ((0, 1),), relation_heads=2, **weights), student, teacher)
    assert guide.causal

    def loss(lengths: list[int], longest: int, filler: int) -> float:
        drawn = torch.randint(1, 50, (2, 6), generator=torch.Generator().manual_seed(5))
        ids = torch.full((len(lengths), longest), filler)
        for row, length in enumerate(lengths):
            ids[row, :length] = drawn[row, :length]
        examples = Examples({"input_ids": ids.numpy()}, np.zeros(len(lengths)), np.array(lengths))
        taken = take_batch(examples, np.arange(len(lengths)), "cpu")
        # `take_batch` cuts padding to the longest row; here more of it is wanted.
        mask = torch.nn.functional.pad(taken.mask, (0, longest - taken.mask.shape[1]))
        with torch.no_grad():
            return float(guide.loss({"input_ids": ids}, student(input_ids=ids, **guide.options), mask))

    found = loss([6, 3], 6, 0)
    assert found > 1e-3
    assert loss([6, 3], 6, 17) == pytest.approx(found, rel=1e-5)
    assert loss([6, 3], 9, 0) == pytest.approx(found, rel=1e-5)
    whole = loss([6, 6], 6, 0)
    assert whole != pytest.approx(found, rel=1e-3)


def test_relations_to_later_positions_do_not_count_where_attention_is_causal() -> None:
    """Held against relations computed one position after the other."""
    student, teacher = draw(2, 4, 8), draw(2, 4, 8, seed=1)
    total = torch.tensor(0.0)
    for row in range(2):
        for place in range(4):
            for head in range(2):
                part = slice(4 * head, 4 * head + 4)
                mine, theirs = (
                    (given[row, place, part] @ given[row, : place + 1, part].T / 2).log_softmax(-1)
                    for given in (student, teacher)
                )
                total = total + (theirs.exp() * (theirs - mine)).sum()
    torch.testing.assert_close(relation_loss(student, teacher, None, 2, True), total / (2 * 4 * 2))
    later = student.clone()
    later[:, 3] = 9.0
    first = torch.tensor([[1, 1, 1, 0]]).expand(2, -1)
    # The first positions' relations stay what they were, whatever comes to stand after them.
    before, after = (relation_loss(given[:, :3], teacher[:, :3], None, 2, True) for given in (student, later))
    torch.testing.assert_close(before, after)
    torch.testing.assert_close(relation_loss(later, teacher, first, 2, True), before)
    assert not torch.isclose(relation_loss(student, teacher, None, 2), total / (2 * 4 * 2), rtol=0.01)


def test_the_mask_of_a_batch_is_that_of_its_rows() -> None:
    lengths = np.array([4, 2, 3])
    ids = np.ones((3, 5), np.int64)
    rows = np.array([1, 2])
    plain = take_batch(Examples({"input_ids": ids}, np.zeros(3), lengths), rows, "cpu")
    assert plain.mask.tolist() == [[True, True, False], [True, True, True]]
    flat = Ragged(np.ones(9, np.int64), lengths, 0)
    assert take_batch(Examples({"input_ids": flat}, np.zeros(3), lengths), rows, "cpu").mask.equal(plain.mask)
    images = Examples({"pixel_values": np.ones((3, 1, 2, 2), np.float32)}, np.zeros(3), lengths, ragged=False)
    assert take_batch(images, rows, "cpu").mask is None
