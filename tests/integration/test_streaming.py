"""Data that do not fit in memory: read, checked, encoded by Ray Data and batched, with a limit on memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from equipoise.config.model import ModelConfig
from equipoise.data import rows as rows_module
from equipoise.data.rows import RowCollector
from equipoise.data.spool import SpooledColumn
from equipoise.ray_runtime import start_ray, stop_ray
from equipoise.tasks import find_task
from equipoise.training.encoding import encode_examples

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
    pytest.mark.timeout(480),
]

_MIB = 1 << 20
_LIMITED = """
import json, resource, sys
from pathlib import Path

import numpy as np

from equipoise.config import RunConfig
from equipoise.data import load_rows, prepare_data
from equipoise.data import rows as rows_module
from equipoise.ray_runtime import prepare_environment, start_ray, stop_ray
from equipoise.tasks import find_task
from equipoise.training.encoding import encode_examples
from equipoise.training.examples import take_batch

config, base, cache, headroom = json.loads(sys.argv[1])
prepare_environment()
import torch
config = RunConfig.model_validate(config)
task = find_task(config.task).create(Path(base), [f"class-{n}" for n in range(4)], config.model)
take_batch(encode_examples(task, ["one text"], ["class-1"]), np.array([0]), "cpu")  # what libraries hold
load_rows(config.data.test, "text", "label", 1 << 20)
start_ray()
import ray.data
ray.data.range(8, override_num_blocks=2).map_batches(lambda block: block).take_all()
held = next(line for line in open("/proc/self/status") if line.startswith("VmData:")).split()[1]
limit = int(held) * 1024 + headroom
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
rows_module.SPOOL_BYTES = 4 << 20
if sys.argv[2] == "memory":
    rows_module.SPOOL_BYTES = 1 << 40
data = prepare_data(config).settled(Path(cache) / "rows")
examples = encode_examples(task, data.train.inputs, data.train.labels, cache=Path(cache))
order = np.random.default_rng(0).permutation(len(examples))
places = sum(int(take_batch(examples, order[i : i + 64], "cpu").targets.numel()) for i in range(0, 6400, 64))
print(json.dumps([len(examples), places]))
stop_ray()
"""


@pytest.fixture
def ray() -> Iterator[None]:
    start_ray()
    try:
        yield
    finally:
        stop_ray()


@pytest.mark.usefixtures("ray")
def test_ray_data_encodes_what_memory_would(
    minilm: Path,
    tmp_path: Path,
    intent_rows: Callable[[int, int], list[tuple[str, str]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rows_module, "SPOOL_BYTES", 10_000)
    collector = RowCollector("text", 1000)
    texts, labels = map(list, zip(*intent_rows(2500, 1), strict=True))
    for text, label in zip(texts, labels, strict=True):
        collector.add("row", text, label)
    rows = collector.rows()
    assert isinstance(rows.inputs, SpooledColumn)
    task = find_task("text_classification").create(
        minilm, sorted(set(labels)), ModelConfig(teacher=str(minilm), max_length=16)
    )
    streamed = encode_examples(task, rows.inputs, rows.labels, cache=tmp_path / "streamed")
    written = encode_examples(task, texts, labels, cache=tmp_path / "written")
    assert streamed.digest() == written.digest()
    assert np.array_equal(streamed.lengths, task.lengths(texts))


@pytest.mark.slow
def test_data_larger_than_the_memory_allowed(minilm: Path, tmp_path: Path) -> None:
    rows = 160_000
    _write(tmp_path / "train.jsonl", rows, 0)
    _write(tmp_path / "test.jsonl", 100, 1)
    size = (tmp_path / "train.jsonl").stat().st_size
    headroom = 80 * _MIB
    assert size > headroom
    config = {
        "name": "streamed",
        "task": "text_classification",
        "data": {split: str(tmp_path / f"{split}.jsonl") for split in ("train", "test")},
        "model": {"teacher": str(minilm), "max_length": 32},
        "cost": {"node": "aws/c7a.xlarge"},
    }
    arguments = json.dumps([config, str(minilm), str(tmp_path / "cache"), headroom])

    def run(mode: str) -> subprocess.CompletedProcess[str]:
        command = ["bash", "-c", 'ulimit -s 1024 && exec "$@"', "-", sys.executable, "-c", _LIMITED]
        # Thread stacks, and what allocators reserve ahead, would spend the limit on nothing.
        env = os.environ | {"ARROW_DEFAULT_MEMORY_POOL": "system", "MALLOC_ARENA_MAX": "2"}
        command += [arguments, mode]
        return subprocess.run(command, capture_output=True, text=True, timeout=460, check=False, env=env)

    held_in_memory = run("memory")
    assert "MemoryError" in held_in_memory.stderr, held_in_memory.stderr[-2000:]
    streamed = run("disk")
    assert streamed.returncode == 0, streamed.stderr[-4000:]
    count, places = json.loads(streamed.stdout.splitlines()[-1])
    assert count == round(0.9 * rows)
    assert places == 6400


def _write(file: Path, rows: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    words = np.array([f"word{number}" for number in range(5000)])
    with file.open("w", encoding="utf-8") as opened:
        for number in range(rows):
            text = f"{seed} {number} " + " ".join(words[rng.integers(0, 5000, 90)])
            opened.write(json.dumps({"text": text, "label": f"class-{number % 4}"}) + "\n")
