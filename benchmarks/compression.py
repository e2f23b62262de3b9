"""Speed that pruning to a target achieves, what zeros gain, and what a trimmed vocabulary costs."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from benchmarks.record import Measured, measured_here_and_now, write_result
from tokenizers import Tokenizer

from equipoise.compression.export import export_model
from equipoise.compression.importance import Scores, score
from equipoise.compression.latency_measure import Bench, cached_table
from equipoise.compression.latency_table import fit_structure
from equipoise.compression.sparsity import sparsify
from equipoise.compression.vocabulary import kept_ids, trim_tokenizer
from equipoise.config import RunConfig, validate_config
from equipoise.data import PreparedData, prepare_data
from equipoise.engines import Predictor, open_engine
from equipoise.search.measured import calibration_batches
from equipoise.tasks import Task, find_task
from equipoise.training.encoding import encode_examples
from equipoise.training.initialization import load_initial_model, save_model
from equipoise.training.pretrained import resolve_pretrained

ENGINES = ("onnxruntime", "openvino")
ZEROS = (0.8, 0.95)
TARGETS = (1.5, 2.0, 3.0, 4.0, 6.0, 8.0)
_SCORED_ROWS = 128


def main() -> None:
    """Measure the asked-for parts and write `results/compression_PART.json` for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", choices=PARTS, action="append", help="one or more; by default all")
    given = parser.parse_args()
    for part in given.part or PARTS:
        command = f"python -m benchmarks.compression --part {part}"
        print(write_result(f"compression_{part}", command, PARTS[part](), measured_here_and_now()))


def measure_targets() -> list[Measured]:
    """Achieved speed over the asked-for one, on MiniLM in int8 with the lengths of Reuters R8.

    The structure alone decides the speed, so the models are timed with random weights; which layers and
    widths are kept is decided by scores of the pretrained model with a new head.
    """
    config, base, data, task = reuters()
    calibration = calibration_batches(task, data.train.inputs, config.seed)
    scores = _scores(base, data, task)
    figures = []
    for engine in ENGINES:
        table = cached_table(
            base,
            task,
            data.validation.inputs,
            calibration,
            engine=engine,
            precision="int8",
            seed=config.seed,
            tell=lambda what, done, of: print(f"  {what} ({done + 1} of {of})", flush=True),
        )
        most = table.whole_ms / table.fastest_ms
        print(f"{engine}: {table.whole_ms:.2f} ms whole, at most {most:.2f} times as fast")
        rng = np.random.default_rng([config.seed, 9])
        rows = rng.integers(0, len(data.validation), 150)
        with tempfile.TemporaryDirectory() as scratch:
            inputs = [data.validation.inputs[row] for row in rows]
            bench = Bench(base, Path(scratch), task, inputs, calibration, engine, "int8")
            whole = bench.open([bench.heads] * bench.layers, [bench.ffn] * bench.layers)
            for asked in TARGETS:
                name = f"{engine} int8, {asked:g} times as fast asked for: distance of the achieved speed"
                if asked > most:
                    print(f"{name}: beyond the table")
                    continue
                budget = table.budget_ms(speedup=asked, p99_ms=None, where="benchmark")
                fitted = fit_structure(table, scores, budget)
                share, _ = bench.compare(bench.open(fitted.heads, fitted.ffn), whole)
                widths = f"layers {fitted.layers}, heads {fitted.heads}, FFN {fitted.ffn}"
                print(f"{engine} {asked:g}: {1 / share:.2f} achieved, {widths}", flush=True)
                figures.append(Measured(name, abs(1 / share / asked - 1), 0.1, "lower"))
    return figures


def measure_vocabulary() -> list[Measured]:
    """Pieces of the R8 test texts and share of the vocabulary, after trimming to the training texts."""
    _, base, data, task = reuters(rows=None)
    # As in a run: texts are cut at model.max_length.
    used = set(np.unique(task.encode(data.train.inputs)["input_ids"]).tolist())
    whole = Tokenizer.from_file(str(base / "tokenizer.json"))
    whole.no_padding()
    whole.no_truncation()
    kept = kept_ids(whole, used)
    trimmed = trim_tokenizer(whole, kept)
    lengths = [
        sum(len(found.ids) for found in tokenizer.encode_batch(data.test.inputs))
        for tokenizer in (whole, trimmed)
    ]
    print(f"{len(kept):,} of {whole.get_vocab_size():,} pieces")
    return [
        Measured("R8: share of the vocabulary that stays", len(kept) / whole.get_vocab_size(), 0.5, "lower"),
        Measured("R8: pieces of the test texts after over before", lengths[1] / lengths[0], 1.05, "lower"),
    ]


def measure_sparsity() -> list[Measured]:
    """Time of models with zeros over that of the same without, at batch 1 and one thread, in turns."""
    config, base, data, task = reuters()
    calibration = calibration_batches(task, data.train.inputs, config.seed)
    inputs = data.validation.inputs[:100]
    figures = []
    for engine, precision in (
        ("torch", "fp32"),
        *((name, kind) for name in ENGINES for kind in ("fp32", "int8")),
    ):
        opened: dict[float, Predictor] = {}
        with tempfile.TemporaryDirectory() as scratch:
            for share in (0.0, *ZEROS):
                source, target = Path(scratch) / f"model-{share}", Path(scratch) / f"exported-{share}"
                source.mkdir()
                target.mkdir()
                model = load_initial_model(str(base), task.model_class, len(task.labels), None)
                sparsify(model, share)
                save_model(model, source)
                export_model(
                    source,
                    target,
                    engine=engine,
                    precision=precision,
                    task=task,
                    calibration=calibration,
                    onnx_cache=source / "onnx",
                )
                opened[share] = Predictor(task, open_engine(engine, target, precision, threads=1))
            bench = Bench(base, Path(scratch), task, inputs, calibration, engine, precision)
            for share in ZEROS:
                ratio, _ = bench.compare(opened[share], opened[0.0])
                name = f"{engine} {precision}, {share:.0%} zeros: time over that without"
                print(f"{name}: {ratio:.3f}", flush=True)
                figures.append(Measured(name, ratio, 1 - share, "lower"))
    return figures


PARTS: dict[str, Callable[[], list[Measured]]] = {
    "targets": measure_targets,
    "vocabulary": measure_vocabulary,
    "sparsity": measure_sparsity,
}


def reuters(rows: int | None = 600) -> tuple[RunConfig, Path, PreparedData, Task]:
    values = {
        "name": "compression",
        "data": {
            "train": "sample://reuters-r8/train",
            "test": "sample://reuters-r8/test",
            "train_rows": rows,
        },
        "model": {"teacher": "sample://all-minilm-l6-v2"},
    }
    config = validate_config(RunConfig, values, where="benchmark")
    kind = find_task(config.task)
    data = prepare_data(config, kind.layout)
    base = resolve_pretrained(config.model, kind.files)
    return config, base, data, kind.create(base, data.labels, config.model)


def _scores(base: Path, data: PreparedData, task: Task) -> Scores:
    model = load_initial_model(str(base), task.model_class, len(task.labels), None)
    taken = data.train.select(np.arange(min(_SCORED_ROWS, len(data.train))))
    return score(model, "taylor", encode_examples(task, taken.inputs, taken.labels))


if __name__ == "__main__":
    main()
