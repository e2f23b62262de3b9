from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from equipoise.compression.export import export_model
from equipoise.engines import open_engine
from equipoise.tasks import Task
from equipoise.tasks.image_classification import ImageClassification
from equipoise.tasks.text_classification import TextClassification
from equipoise.training.encoding import encode_examples
from equipoise.training.examples import Examples, take_batch
from equipoise.training.fake_quantizers import add_quantizers, read_quantizers, split_quantizers
from equipoise.training.initialization import load_initial_model
from equipoise.training.weights import MODEL_FILES, write_model

# The first of them builds nncf's rounding where it was not built yet.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1200),
    # nncf loads it in a pool that it leaves to be collected.
    pytest.mark.filterwarnings("ignore:.*Pool.__del__:pytest.PytestUnraisableExceptionWarning"),
]


@dataclass(frozen=True)
class Student:
    """A model folder, its task and its encoded rows."""

    folder: Path
    task: Task
    examples: Examples


@pytest.fixture(scope="module", params=["bert", "resnet"])
def student(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    tiny_classifier: Path,
    intent_rows: Callable[[int, int], list[tuple[str, str]]],
) -> Student:
    if request.param == "bert":
        from tokenizers import Tokenizer

        texts, labels = zip(*intent_rows(48, 3), strict=True)
        tokenizer = Tokenizer.from_file(str(tiny_classifier / "tokenizer.json"))
        task: Any = TextClassification(tokenizer, ("billing", "delivery", "travel"), max_length=32)
        return Student(tiny_classifier, task, encode_examples(task, list(texts), list(labels)))
    from transformers import ResNetConfig, ResNetForImageClassification

    folder: Path = tmp_path_factory.mktemp("resnet")
    config = ResNetConfig(
        num_channels=1,
        embedding_size=8,
        hidden_sizes=[8, 16],
        depths=[2, 1],
        layer_type="basic",
        num_labels=3,
    )
    with torch.random.fork_rng():
        torch.manual_seed(2)
        ResNetForImageClassification(config).save_pretrained(folder)
    task = ImageClassification(("a", "b", "c"), 16, 1, [0.5], [0.25])
    pixels = np.random.default_rng(0).integers(0, 256, (48, 16, 16), dtype=np.uint8)
    return Student(folder, task, encode_examples(task, list(pixels), ["a", "b", "c"] * 16))


def logits(model: Any, examples: Examples) -> np.ndarray[Any, Any]:
    batch = take_batch(examples, np.arange(len(examples)), "cpu", torch.float32)
    with torch.inference_mode():
        found: np.ndarray[Any, Any] = model.eval()(**batch.inputs).logits.numpy()
    return found


def test_quantizers_train_are_written_beside_plain_weights_and_become_int8(
    student: Student, tmp_path: Path
) -> None:
    class Engine:
        """What `write_model` needs of DeepSpeed's."""

        def __init__(self, module: Any) -> None:
            self.module, self.optimizer = module, None

    plain: Any = load_initial_model(str(student.folder), student.task.model_class, None, None)
    names = set(plain.state_dict())
    before = logits(plain, student.examples)
    model = add_quantizers(plain, student.examples, seed=13)
    own, levels = split_quantizers(model.state_dict())
    assert set(own) == names
    assert levels
    assert all(torch.equal(value, plain.state_dict()[name]) for name, value in own.items())
    rounded = logits(model, student.examples)
    assert 1e-4 < np.abs(rounded - before).max() < 0.5
    batch = take_batch(student.examples, np.arange(16), "cpu", torch.float32)
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)
    model.train()
    losses = []
    for _ in range(5):
        loss = functional.cross_entropy(model(**batch.inputs).logits, batch.targets)
        optimizer.zero_grad()
        loss.backward()
        trainable = [value for value in model.parameters() if value.requires_grad]
        assert len(trainable) > len(names & dict(model.named_parameters()).keys())
        assert all(value.grad is not None for value in trainable)
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
    trained = logits(model, student.examples)

    write_model(Engine(model), {}, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} <= set(MODEL_FILES)
    alone: Any = load_initial_model(str(tmp_path), student.task.model_class, None, None)
    assert set(alone.state_dict()) == names
    np.testing.assert_allclose(logits(read_quantizers(alone, tmp_path), student.examples), trained, atol=1e-5)

    target = tmp_path / "exported"
    target.mkdir()
    export_model(
        tmp_path,
        target,
        engine="openvino",
        precision="int8_qat",
        task=student.task,
        calibration=[],
        onnx_cache=tmp_path / "onnx",
    )
    engine = open_engine("openvino", target, "int8_qat")
    inputs = {name: value.numpy() for name, value in batch.inputs.items()}
    answers = engine.run(inputs)["logits"]
    assert (answers.argmax(1) == trained[:16].argmax(1)).mean() > 0.9
    assert np.abs(answers - trained[:16]).max() < 0.1 * np.ptp(trained)
    # A row alone: the batch is open.
    one = engine.run({name: value[:1] for name, value in inputs.items()})["logits"]
    np.testing.assert_allclose(one, answers[:1], atol=0.02 * np.ptp(trained))
    assert (target / "model.bin").stat().st_size < 0.6 * (tmp_path / "model.safetensors").stat().st_size


def test_every_rank_gets_the_same_quantizers(student: Student) -> None:
    def build() -> dict[str, torch.Tensor]:
        plain: Any = load_initial_model(str(student.folder), student.task.model_class, None, None)
        return split_quantizers(add_quantizers(plain, student.examples, seed=13).state_dict())[1]

    first, second = build(), build()
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
