"""What a user would take instead, from the same teacher: each built, and measured as candidates are.

`python -m benchmarks.peers RUN`, RUN a finished run folder whose models still stand. Every model runs
through the same Predictor on the run's own test split: the quality on all rows, and the latency of single
requests on one pinned core, in turn, so that a disturbance meets all of them. Microsoft's Olive wants other
versions of our libraries: name the Python of an environment of its own with `--olive`.
"""

from __future__ import annotations

import argparse
import math
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import moocore
import numpy as np
from benchmarks.record import RESULTS, Measured, measured_here_and_now, write_result
from numpy.typing import NDArray

from equipoise.compression.export import export_model
from equipoise.config import RunConfig, validate_config
from equipoise.data import PreparedData, prepare_data
from equipoise.engines import Predictor, open_engine
from equipoise.errors import InputError
from equipoise.measurement.quality import find_truth
from equipoise.measurement.speed import pinned_to_one_core
from equipoise.runs import Candidate, RunFolder
from equipoise.search.context import VOCABULARY
from equipoise.search.frontier import frontier
from equipoise.search.limits import in_order
from equipoise.tasks import Arrays, Task, find_task

CALIBRATION_ROWS = 300
"""nncf's own default, `subset_size`."""
REQUESTS, WARM_UP = 200, 10
POINTS_BEHIND = 0.05
OLIVE_S = 900
ENDINGS = {"onnxruntime": "model.onnx", "openvino": "model.xml"}


@dataclass(frozen=True)
class Subject:
    """A model that was built, and the seconds from the teacher to it."""

    name: str
    predictor: Predictor
    seconds: float


@dataclass(frozen=True)
class Figures:
    """The task's metric on test, and the median milliseconds of a request."""

    metric: float
    latency_ms: float


def main() -> None:
    """Build, measure, write `results/peers.json` and print its path."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", help="a finished run folder")
    parser.add_argument(
        "--olive", help="Python of an environment that has olive-ai; without it Olive is left out"
    )
    parser.add_argument("--requests", type=int, default=REQUESTS, help="timed requests a model")
    parser.add_argument(
        "--within-s", type=float, help="of the run, what was measured in so many seconds of it"
    )
    parser.add_argument("--into", type=Path, default=RESULTS, help="folder of the result")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        figures = compare(RunFolder(given.run), Path(scratch), given.olive, given.requests, given.within_s)
    command = f"python -m benchmarks.peers {given.run}" + (f" --olive {given.olive}" if given.olive else "")
    print(write_result("peers", command, figures, measured_here_and_now(), given.into))


def compare(
    run: RunFolder, scratch: Path, olive: str | None, requests: int, within_s: float | None = None
) -> list[Measured]:
    """Figures of every peer beside the teacher's, and hypervolumes over (metric, log latency).

    Args:
        scratch: where the peers are built.
        olive: Python of Olive's environment; None leaves it out.
        within_s: the run's candidates of its first so many seconds alone; None is all of them.
    """
    config = validate_config(RunConfig, run.read("config.json"), where=run.location)
    task = load_task(run)
    data = prepare_data(config, task.layout)
    teacher = Subject("teacher", _open(task, "torch", run.local("teacher"), "fp32"), 0.0)
    peers = build_peers(task, run.local("teacher"), data, scratch, olive)
    own, own_s = members(run, config, within_s)
    subjects = [teacher, *peers, *own]
    measured = dict(zip([s.name for s in subjects], measure(subjects, data, requests), strict=True))
    found = []
    base = measured["teacher"]
    for subject in subjects[1:]:
        figures = measured[subject.name]
        found += [
            Measured(
                f"{subject.name}: metric on test less the teacher's",
                figures.metric - base.metric,
                0,
                "higher",
            ),
            Measured(
                f"{subject.name}: latency over the teacher's",
                figures.latency_ms / base.latency_ms,
                1,
                "lower",
            ),
            Measured(f"{subject.name}: seconds to build", subject.seconds, own_s, "lower"),
        ]
    theirs = hypervolume([measured[peer.name] for peer in peers], base)
    ours = hypervolume([measured[member.name] for member in own], base)
    name = "hypervolume over (metric, log latency), the run's frontier over all peers together"
    # A peer set that dominates nothing has no volume to be a ratio of.
    found.append(Measured(name, ours / theirs if theirs else math.inf if ours else 1.0, 1, "higher"))
    for peer in peers:
        alone = hypervolume([measured[peer.name]], base)
        found.append(
            Measured(f"{peer.name}: hypervolume over the run's", alone / ours if ours else 0.0, 1, "lower")
        )
    return [each for each in found if math.isfinite(each.value)]


def build_peers(
    task: Task, teacher: Path, data: PreparedData, scratch: Path, olive: str | None
) -> list[Subject]:
    """Each tool with the settings of its own guide to BERT models, nothing tuned."""
    graph = scratch / "fp32" / ENDINGS["onnxruntime"]
    graph.parent.mkdir(parents=True)
    # In every peer's seconds: each needs it, and makes it itself.
    exported_s = _seconds(
        lambda: export_model(
            teacher,
            graph.parent,
            engine="onnxruntime",
            precision="fp32",
            task=task,
            calibration=[],
            onnx_cache=scratch / "cache",
        )
    )
    rows = np.random.default_rng(0).permutation(len(data.train))[:CALIBRATION_ROWS]
    batches = [_encoded(task, data.train.inputs[row]) for row in rows.tolist()]
    dynamic, static = scratch / "dynamic", scratch / "nncf"
    dynamic_s = exported_s + _seconds(lambda: quantize_dynamic(graph, dynamic))
    static_s = exported_s + _seconds(lambda: quantize_nncf(graph, static, batches))
    found = [
        Subject("onnxruntime dynamic int8", _open(task, "onnxruntime", dynamic, "int8"), dynamic_s),
        Subject("nncf int8", _open(task, "openvino", static, "int8"), static_s),
    ]
    if olive is not None:
        target = scratch / "olive"
        olive_s = _seconds(lambda: optimize_with_olive(olive, teacher, target))
        found.append(Subject("Olive auto-opt int8", _open(task, "onnxruntime", target, "int8"), olive_s))
    return found


def quantize_dynamic(graph: Path, target: Path) -> None:
    """`quantize_dynamic` as ONNX Runtime's guide calls it."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    target.mkdir()
    quantize_dynamic(str(graph), str(target / ENDINGS["onnxruntime"]), weight_type=QuantType.QInt8)


def quantize_nncf(graph: Path, target: Path, batches: Sequence[Arrays]) -> None:
    """`nncf.quantize` as OpenVINO's guide calls it for a transformer."""
    import nncf
    import openvino

    quantized = nncf.quantize(
        openvino.convert_model(graph),
        nncf.Dataset(list(batches)),
        model_type=nncf.ModelType.TRANSFORMER,
        subset_size=len(batches),
    )
    target.mkdir()
    openvino.save_model(quantized, str(target / ENDINGS["openvino"]), compress_to_fp16=False)


def optimize_with_olive(python: str, teacher: Path, target: Path) -> None:
    """Olive's automatic optimisation for a CPU in int8, in its own environment.

    Raises:
        InputError: Olive is not there, or does not write one ONNX file.
    """
    output = target.resolve().with_name("olive-output")
    command = (
        *(python, "-m", "olive", "auto-opt", "-m", str(teacher.resolve()), "--task", "text-classification"),
        *("--precision", "int8", "--device", "cpu", "--provider", "CPUExecutionProvider"),
        *("--disable_telemetry", "-o", str(output)),
    )
    try:
        # It leaves a cache of what it tried in the folder that it runs in.
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=OLIVE_S, check=False, cwd=output.parent
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise InputError(f"Olive does not run: {error}", where="--olive", value=python) from error
    files = sorted(output.rglob("*.onnx"))
    if len(files) != 1:
        last = (done.stderr.strip() or done.stdout.strip() or "nothing").splitlines()[-1]
        raise InputError(f"Olive wrote {len(files)} models: {last}", where="--olive", value=python)
    target.mkdir()
    for file in files[0].parent.iterdir():  # weights may lie beside the graph
        if file.is_file():
            shutil.copy(file, target / file.name)
    (target / files[0].name).rename(target / ENDINGS["onnxruntime"])


def members(run: RunFolder, config: RunConfig, within_s: float | None) -> tuple[list[Subject], float]:
    """The run's frontier, opened, and the seconds that the run took to it.

    Seconds are those of each candidate's own training and measuring, one after another, the teacher's
    training left out: the peers are given a teacher too.
    """
    kept: list[Candidate] = []
    trained: set[str] = set()
    spent = 0.0
    for candidate in in_order(run.candidates()):
        seconds = dict(candidate.seconds)
        if candidate.recipe.structure in trained:
            seconds["train"] = 0.0
        if within_s is not None and spent + sum(seconds.values()) > within_s:
            break
        trained.add(candidate.recipe.structure)
        spent += sum(seconds.values())
        kept.append(candidate)
    names: tuple[str, str] = ("metric", "latency_p99_ms")
    found = []
    for member in frontier(kept, names):
        if member.is_teacher:
            continue
        task = load_task(run, member.recipe.vocabulary)
        predictor = _open(
            task, member.recipe.engine, run.local("models", member.recipe_hash), member.recipe.precision
        )
        found.append(Subject(f"Equipoise, {member.recipe.label}", predictor, spent))
    return found, spent


def measure(subjects: Sequence[Subject], data: PreparedData, requests: int) -> list[Figures]:
    """Metric on test and median latency of each, in their order."""
    task = subjects[0].predictor.task
    rows, inputs = len(data.test), data.test.inputs
    truth = find_truth(task, inputs, data.test.labels)
    metrics = [
        float(task.metric(task.tally(each.predictor.answers(inputs), truth, rows).sum(axis=0)))
        for each in subjects
    ]
    drawn = np.random.default_rng(3).integers(0, rows, requests + WARM_UP)
    seconds = np.empty((len(drawn), len(subjects)))
    with pinned_to_one_core():
        for place, row in enumerate(drawn.tolist()):
            for column, subject in enumerate(subjects):
                begun = time.perf_counter()
                subject.predictor.predict([inputs[row]])
                seconds[place, column] = time.perf_counter() - begun
    latencies = np.median(seconds[WARM_UP:], axis=0) * 1e3
    return [Figures(metric, float(ms)) for metric, ms in zip(metrics, latencies, strict=True)]


def hypervolume(found: Sequence[Figures], teacher: Figures) -> float:
    """Over (metric, log latency), up to 5 points below the teacher's metric at the teacher's latency."""
    reference = _position(teacher) + np.array([POINTS_BEHIND, 0.0])
    points = np.array([_position(figures) for figures in found]).reshape(-1, 2)
    inside = points[(points < reference).all(axis=1)]
    return float(moocore.hypervolume(inside, ref=reference)) if len(inside) else 0.0


def load_task(run: RunFolder, vocabulary: str = "full") -> Task:
    """The run's task, with the teacher's tokenizer or the trimmed one."""
    described = run.read("teacher", "trained.json")["task"]
    return find_task(described["name"]).load(
        run.local("teacher" if vocabulary == "full" else VOCABULARY), described
    )


def _position(figures: Figures) -> NDArray[np.float64]:
    return np.array([-figures.metric, math.log(figures.latency_ms)])


def _open(task: Task, engine: str, folder: Path, precision: str) -> Predictor:
    return Predictor(task, open_engine(engine, folder, precision, threads=1))


def _encoded(task: Task, value: object) -> Arrays:
    encoded = task.encode([value])
    return {name: encoded[name] for name in task.inputs}


def _seconds(build: Callable[[], object]) -> float:
    begun = time.perf_counter()
    build()
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()
