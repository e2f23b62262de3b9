"""A run on images whose students lose channels and are trained for int8, from the config to the bundle."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoModelForImageClassification

from equipoise.bundle import open_bundle
from equipoise.engines import Predictor, open_engine
from equipoise.runs import RunFolder

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


def write_images(folder: Path, count: int, seed: int) -> str:
    """Three labels, told apart by the rows that are bright."""
    from PIL import Image

    draw = np.random.default_rng(seed)
    for number in range(count):
        label = number % 3
        pixels = draw.integers(0, 60, (16, 16), dtype=np.uint8)
        pixels[5 * label : 5 * label + 4] += 180
        (folder / f"band-{label}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / f"band-{label}" / f"{number}.png")
    return str(folder)


@pytest.fixture(scope="module")
def finished(runs: Any, tiny_run: Callable[..., dict[str, Any]]) -> RunFolder:
    values = tiny_run(
        task="image_classification",
        data={
            "train": write_images(runs.folder / "train", 90, 1),
            "test": write_images(runs.folder / "test", 24, 2),
        },
        training={"workers": 1},
        search={"trials": 5, "depths": [4], "channel_shares": [0.5], "engines": ["torch", "openvino"]},
        compression={
            "recipes": [
                [{"prune": {"channels": [8, 8, 16], "layers": [0, 2], "importance": "magnitude"}}, "distil"],
                [{"quantize": {"engine": "openvino", "precision": "int8_qat"}}],
            ]
        },
    )
    values["model"] = {
        "teacher": "new://resnet",
        "image_size": 16,
        "architecture": {
            "num_channels": 1,
            "embedding_size": 16,
            "hidden_sizes": [16, 32],
            "depths": [2, 2],
            "layer_type": "basic",
        },
    }
    folder = runs.folder / "run"
    done = runs.call(
        "run", "-f", str(runs.write("run.yaml", values)), "--out", str(folder), "--json", timeout_s=1100
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return RunFolder(folder)


def test_students_of_fewer_channels_are_smaller_and_on_record(
    finished: RunFolder,
) -> None:
    found = {candidate.recipe.label: candidate for candidate in finished.candidates()}
    teacher = next(candidate for candidate in found.values() if candidate.is_teacher)
    written = found["2 layers (0,2), channels 8/8/16, by magnitude fp32 torch"]
    searched = found["4 layers (0-3), channels 8/8/16 int8 openvino"]
    assert written.parameters < searched.parameters < 0.35 * teacher.parameters
    assert written.bytes < 0.35 * teacher.bytes
    for name in ("channels-magnitude.json", "channels-taylor.json"):
        assert finished.has("importance", name)


def test_a_student_of_fewer_channels_is_a_plain_model_that_learned(
    finished: RunFolder,
) -> None:
    folder = Path(finished.location) / "students" / "layers-0-1-2-3-channels-8-8-16"
    student = AutoModelForImageClassification.from_pretrained(folder)
    assert student.config.hidden_sizes == [8, 16]
    found = {candidate.recipe.label: candidate for candidate in finished.candidates()}
    assert found["4 layers (0-3), channels 8/8/16 int8 openvino"].quality.metric.value > 0.6


def test_the_teacher_is_trained_on_for_int8(finished: RunFolder) -> None:
    found = {candidate.recipe.label: candidate for candidate in finished.candidates()}
    trained = found["4 layers (0-3) int8_qat openvino"]
    assert trained.quality.metric.value > 0.6
    assert trained.seconds["train"] > 0
    folder = Path(finished.location) / "students" / "layers-0-1-2-3-int8_qat"
    assert {path.name for path in folder.iterdir()} >= {"quantizers.json", "quantizers.safetensors"}
    assert AutoModelForImageClassification.from_pretrained(folder).config.depths == [2, 2]


def test_its_bundle_answers(finished: RunFolder) -> None:
    bundle = open_bundle(Path(finished.location) / "bundle")
    predictor = Predictor(
        bundle.load_task(), open_engine(bundle.engine, bundle.model_folder, bundle.precision)
    )
    [answer] = predictor.predict([np.zeros((16, 16), dtype=np.uint8)])
    assert answer["label"] in ("band-0", "band-1", "band-2")
