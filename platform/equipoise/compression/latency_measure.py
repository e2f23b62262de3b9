"""Measuring a latency table: whole models of one width after the other, each beside the whole one.

In place, not layer by layer: what an engine fuses across layers is in the figures. Weights do not matter
to the time, so the models are made of random ones, before any training.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise import hardware, storage
from equipoise.compression.export import export_model
from equipoise.compression.latency_table import LatencyTable
from equipoise.engines import Predictor, open_engine
from equipoise.engines.architectures import find_class, read_config
from equipoise.engines.narrowing import find_parts, keep_units, read_widths
from equipoise.measurement.speed import pinned_to_one_core
from equipoise.measurement.stopwatch import opened_stopwatch
from equipoise.tasks import Arrays, Task
from equipoise.training.initialization import keep_layers, save_model

_SHARES = (0.75, 0.5, 0.375, 0.25, 0.125, 0.0625)
_FFN_STEP = 8
_REQUESTS = 80
_ROUNDS = 3
_VERSION = 1


def cached_table(
    base: Path,
    task: Task,
    inputs: Sequence[Any],
    calibration: Sequence[Arrays],
    *,
    engine: str,
    precision: str,
    seed: int,
    tell: Callable[[str, int, int], None] = lambda what, done, of: None,
) -> LatencyTable:
    """The table of a model's build on this machine: read where it was measured before, else measured.

    It is kept in the user's cache by hardware fingerprint (library versions included), engine, precision,
    the model's measures and the lengths of the inputs.

    Args:
        base: folder whose config says the build; its weights are not read.
        inputs: rows whose lengths are timed.
        calibration: encoded batches for int8.
        tell: called with what is being done, how many models are timed and of how many.
    """
    fingerprint = hardware.fingerprint(hardware.describe_hardware())
    config = read_config(base)
    measures = {
        name: getattr(config, name, None)
        for name in (
            "model_type",
            "hidden_size",
            "num_hidden_layers",
            "num_attention_heads",
            "num_key_value_heads",
            "intermediate_size",
        )
    }
    deciles = np.percentile(task.lengths(inputs), range(0, 101, 10)).round().tolist()
    content = json.dumps([_VERSION, fingerprint, engine, precision, task.name, measures, deciles])
    file = storage.user_cache("latency") / f"{hashlib.sha256(content.encode()).hexdigest()[:16]}.json"
    if file.is_file():
        return LatencyTable.model_validate(storage.read_json(str(file)))
    rng = np.random.default_rng([seed, 8])
    drawn = [inputs[row] for row in rng.integers(0, len(inputs), _REQUESTS)]
    with tempfile.TemporaryDirectory() as scratch:
        bench = Bench(base, Path(scratch), task, drawn, calibration, engine, precision)
        found = _measure(bench, fingerprint, tell)
    storage.put_json(str(file), found.model_dump(mode="json"))
    return found


def _measure(bench: Bench, fingerprint: str, tell: Callable[[str, int, int], None]) -> LatencyTable:
    layers, heads, ffn = bench.layers, bench.heads, bench.ffn
    head_counts = _counts(heads, 1)
    ffn_counts = _counts(ffn, _FFN_STEP)
    total = len(head_counts) + len(ffn_counts) + 1
    whole = bench.open([heads] * layers, [ffn] * layers)
    references = [bench.time(whole)]
    shares: dict[tuple[str, int], float] = {}
    jobs = [("layers", max(1, layers // 3))]
    jobs += [("heads", count) for count in head_counts] + [("ffn", count) for count in ffn_counts]
    for done, (kind, count) in enumerate(jobs):
        tell(f"timing {bench.engine} {bench.precision}, {count} {kind}", done, total)
        depth = count if kind == "layers" else layers
        other = bench.open(
            [count if kind == "heads" else heads] * depth, [count if kind == "ffn" else ffn] * depth
        )
        shares[kind, count], reference = bench.compare(other, whole)
        references.append(reference)
    latencies = np.concatenate(references)
    whole_ms, p99_ms = (float(value) for value in np.percentile(latencies, (50, 99)))
    kept = jobs[0][1]
    layer_ms = whole_ms * (1 - shares[jobs[0]]) / (layers - kept) if layers > kept else whole_ms
    # A layer cannot take more than its part of the whole, nor a narrower one less than nothing.
    layer_ms = min(layer_ms, whole_ms / layers)
    saved = {key: whole_ms * (1 - share) / layers for key, share in shares.items()}
    return LatencyTable(
        engine=bench.engine,
        precision=bench.precision,
        fingerprint=fingerprint,
        layers=layers,
        whole_ms=whole_ms,
        whole_p99_ms=p99_ms,
        layer_ms=layer_ms,
        heads_ms={heads: 0.0} | {count: saved["heads", count] for count in head_counts},
        ffn_ms={ffn: 0.0} | {count: saved["ffn", count] for count in ffn_counts},
    )


class Bench:
    """Makes models of given widths with random weights, and times them.

    Args:
        base: folder whose config says the build.
        scratch: an empty folder for the models.
        inputs: what is timed, each alone.
    """

    def __init__(
        self,
        base: Path,
        scratch: Path,
        task: Task,
        inputs: Sequence[Any],
        calibration: Sequence[Arrays],
        engine: str,
        precision: str,
    ) -> None:
        self.base, self.scratch, self.task, self.inputs = base, scratch, task, inputs
        self.calibration, self.engine, self.precision = calibration, engine, precision
        widths = read_widths(self._build())
        self._made = 0
        self.layers, self.heads, self.ffn = len(widths.heads), widths.heads[0], widths.ffn[0]

    def open(self, heads: Sequence[int], ffn: Sequence[int]) -> Predictor:
        """A model of as many layers as counts are given, each so wide."""
        model = self._build()
        keep_layers(model, range(len(heads)))
        for parts, kept_heads, kept_ffn in zip(find_parts(model), heads, ffn, strict=True):
            keep_units(parts, range(kept_heads), range(kept_ffn))
        name = f"model-{self._made}"
        self._made += 1
        source, target = self.scratch / name, self.scratch / f"{name}-exported"
        source.mkdir()
        target.mkdir()
        save_model(model, source)
        export_model(
            source,
            target,
            engine=self.engine,
            precision=self.precision,
            task=self.task,
            calibration=self.calibration,
            onnx_cache=source / "onnx",
        )
        with pinned_to_one_core():
            return Predictor(self.task, open_engine(self.engine, target, self.precision, threads=1))

    def time(self, predictor: Predictor) -> NDArray[np.float64]:
        """Milliseconds of each input, alone, without the wait for a core."""
        found = np.empty(len(self.inputs))
        with pinned_to_one_core(), opened_stopwatch() as stopwatch:
            for warm_up in self.inputs[:10]:
                predictor.predict([warm_up])
            for place, value in enumerate(self.inputs):
                found[place] = stopwatch.time(partial(predictor.predict, [value])).own_s * 1e3
        return found

    def compare(self, other: Predictor, whole: Predictor) -> tuple[float, NDArray[np.float64]]:
        """The other's median over the whole model's, taken in turns; and the whole model's times."""
        own, reference = [], []
        for _ in range(_ROUNDS):
            own.append(self.time(other))
            reference.append(self.time(whole))
        shares = [float(np.median(a) / np.median(b)) for a, b in zip(own, reference, strict=True)]
        return float(np.median(shares)), np.concatenate(reference)

    def _build(self) -> Any:
        import torch

        config = read_config(self.base)
        if self.task.labels:
            config.num_labels = len(self.task.labels)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return find_class(self.task.model_class).from_config(config).eval()


def _counts(whole: int, step: int) -> list[int]:
    """Fewer than the whole, ascending, without those that come to the same."""
    found = {max(step, round(share * whole / step) * step) for share in _SHARES}
    return sorted(count for count in found if count < whole)
