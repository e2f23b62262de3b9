"""What a teacher has inside is computed once and kept, and a student learns the same from it."""

from __future__ import annotations

import resource
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from equipoise.config import RunConfig
from equipoise.errors import StorageError
from equipoise.training.examples import Examples, take_batch
from equipoise.training.finetune import distill_student
from equipoise.training.guidance import find_guidance
from equipoise.training.guide import Guide, ask_inside, observe
from equipoise.training.state_cache import add_states
from equipoise.training.teacher_outputs import TaskUse

pytestmark = [
    pytest.mark.usefixtures("local_ray"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
    pytest.mark.timeout(300),
]

ROWS, DEPTH, WIDTH = 70, 3, 16


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wide spread of weights, so that positions and layers differ."""
    folder = tmp_path_factory.mktemp("teacher")
    with torch.random.fork_rng():
        torch.manual_seed(3)
        config = BertConfig(
            vocab_size=100,
            hidden_size=WIDTH,
            num_hidden_layers=DEPTH,
            num_attention_heads=2,
            intermediate_size=WIDTH,
            num_labels=3,
            initializer_range=0.5,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        )
        BertForSequenceClassification(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def examples() -> Examples:
    """Rows of many lengths, those long enough for several tasks."""
    draw = np.random.default_rng(9)
    lengths = draw.integers(3, 400, ROWS)
    mask = (np.arange(lengths.max()) < lengths[:, None]).astype(np.int64)
    ids = draw.integers(1, 100, mask.shape) * mask
    return Examples(
        {"input_ids": ids, "attention_mask": mask},
        draw.integers(0, 3, ROWS),
        lengths,
        teacher_logits=draw.normal(size=(ROWS, 3)).astype(np.float32),
    )


@pytest.fixture
def config(run_config: Callable[..., RunConfig]) -> Callable[..., RunConfig]:
    def build(precision: str = "fp32", **distillation: Any) -> RunConfig:
        settings = {"epochs": 1, "hidden_weight": 1.0, "relation_weight": 1.0, "relation_heads": 2}
        return run_config(
            training={"workers": 1, "precision": precision, "batch_size": 10, "zero_stage": 0},
            distillation={**settings, **distillation},
        )

    return build


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("*/*")}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_what_is_kept_is_what_the_teacher_has_inside(
    precision: str, config: Callable[..., RunConfig], teacher: Path, examples: Examples, tmp_path: Path
) -> None:
    settings = config(precision, layer_map="uniform")
    used: list[TaskUse] = []
    added = add_states(settings, teacher, (0, 1), examples, tmp_path, on_task=used.append)
    assert len(used) > 1
    assert all(use.stop > use.start and use.cpu_s > 0 for use in used)
    kinds = ("hidden", "query", "key", "value")
    assert files(tmp_path) == {f"{kind}.{layer}.npy" for kind in kinds for layer in (0, 2)}

    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    model: Any = BertForSequenceClassification.from_pretrained(teacher).eval().to(dtype)
    guidance = find_guidance(settings.distillation, teacher, (0, 1))
    assert guidance is not None
    rows = np.array([5, 0, 69, 33])
    taken = take_batch(added, rows, "cpu")
    expected = ask_inside(guidance, model, observe(guidance, model), taken.inputs)
    assert taken.teacher_states is not None
    assert set(taken.teacher_states) == set(expected)
    for name, values in taken.teacher_states.items():
        assert values.dtype == dtype
        assert values.shape == expected[name].shape
        for place, length in enumerate(examples.lengths[rows]):
            assert not values[place, length:].any()
            apart = (values[place, :length].float() - expected[name][place, :length].float()).abs().max()
            assert float(apart) < (1e-4 if precision == "fp32" else 0.2), name


def test_a_second_student_pays_for_what_is_missing_alone(
    config: Callable[..., RunConfig], teacher: Path, examples: Examples, tmp_path: Path
) -> None:
    used: list[TaskUse] = []

    def add(layers: tuple[int, ...], rows: Examples = examples, **settings: Any) -> Examples:
        used.clear()
        return add_states(config(**settings), teacher, layers, rows, tmp_path, on_task=used.append)

    first = add((0, 1))
    assert used
    for layers, settings in (((2,), {}), ((0, 1), {"relation_weight": 0.0}), ((0,), {"layer_map": [2]})):
        assert add(layers, **settings).teacher_states is not None
        assert not used
    written = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/*")}
    other = add((0, 1), layer_map=[1, 2])
    assert used
    assert all(path.stat().st_mtime_ns == at for path, at in written.items())
    assert first.teacher_states is not None
    assert other.teacher_states is not None
    assert other.teacher_states.folder == first.teacher_states.folder
    # Other rows are another folder's.
    fewer = Examples(
        {name: array[:9] for name, array in examples.arrays.items()},  # type: ignore[index]
        examples.targets[:9],  # type: ignore[index]
        examples.lengths[:9],
    )
    third = add((0, 1), fewer)
    assert used
    assert third.teacher_states is not None
    assert third.teacher_states.folder != first.teacher_states.folder


def test_a_trial_computes_them_outside_its_own_placement_group(
    config: Callable[..., RunConfig], teacher: Path, examples: Examples, tmp_path: Path
) -> None:
    """That of a trial of Ray Tune holds no CPUs."""
    import ray

    group = ray.util.placement_group([{"memory": 2**26}])
    within = ray.util.scheduling_strategies.PlacementGroupSchedulingStrategy(
        group, placement_group_capture_child_tasks=True
    )
    trial = ray.remote(num_cpus=0, memory=2**26, scheduling_strategy=within)(add_states)
    try:
        found = ray.get(trial.remote(config(), teacher, (0,), examples, tmp_path), timeout=60)
    finally:
        ray.util.remove_placement_group(group)
    assert found.teacher_states is not None


# Ray Train starts for it; with language models and image models the same is part of their own slow tests.
@pytest.mark.slow
def test_a_student_learns_from_what_was_kept_without_its_teacher(
    config: Callable[..., RunConfig], teacher: Path, examples: Examples, tmp_path: Path
) -> None:
    """The student's first layer is held to the teacher's last, from which it is far at first."""
    settings = config(layer_map=[2], hidden_weight=10.0, learning_rate=1e-2, epochs=4)
    added = add_states(settings, teacher, (0, 1, 2), examples, tmp_path / "cache")
    start, gone, student = (tmp_path / name for name in ("start", "gone", "student"))
    shutil.copytree(teacher, start)
    # Nothing but what was kept tells of the teacher.
    gone.mkdir()
    shutil.copy(teacher / "config.json", gone)
    figures = distill_student(settings, gone, (0, 1, 2), added, student, tmp_path / "scratch", start=start)
    assert figures["loss"] > 0

    guidance = find_guidance(settings.distillation, teacher, (0, 1, 2))
    assert guidance is not None
    batch = take_batch(added, np.arange(ROWS), "cpu")
    whole = BertForSequenceClassification.from_pretrained(teacher).eval()
    apart = []
    for folder in (start, student):
        model: Any = BertForSequenceClassification.from_pretrained(folder).eval()
        guide = Guide(guidance, model, whole)
        with torch.inference_mode():
            outputs = model(**batch.inputs, **guide.options)
            asked = float(guide.loss(batch.inputs, outputs, batch.mask))
            told = float(guide.loss(batch.inputs, outputs, batch.mask, batch.teacher_states))
        assert told == pytest.approx(asked, rel=1e-4)
        apart.append(told)
    assert apart[1] < 0.9 * apart[0]


def test_more_than_allowed_is_not_kept(
    config: Callable[..., RunConfig], teacher: Path, examples: Examples, tmp_path: Path
) -> None:
    for gib in (0, 1e-4):
        assert add_states(config(states_gib=gib), teacher, (0,), examples, tmp_path).teacher_states is None
        assert not files(tmp_path)
    plain = config(hidden_weight=0.0, relation_weight=0.0)
    assert add_states(plain, teacher, (0,), examples, tmp_path) is examples


def test_a_full_disk_leaves_nothing_half_written(
    config: Callable[..., RunConfig], teacher: Path, examples: Examples, tmp_path: Path
) -> None:
    """No file may be as large as what is kept of a layer, after another layer was kept."""
    other = config(layer_map=[0])
    add_states(other, teacher, (0,), examples, tmp_path)
    before = files(tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, limits[1]))
    try:
        with pytest.raises(StorageError, match="the disk is full"):
            add_states(config(), teacher, (0,), examples, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert files(tmp_path) == before
    assert add_states(config(), teacher, (0,), examples, tmp_path).teacher_states is not None
