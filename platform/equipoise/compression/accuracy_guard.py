"""int8 in OpenVINO that spares the layers which lose the most, through nncf's accuracy control.

nncf ranks groups of operations by how much closer the outputs come to fp32 without their quantizers, and
takes them out one after the other until the metric is back. It is given a number of steps and of ranking
batches that fits the time.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise.compression.quantization import quantize_openvino
from equipoise.tasks import IGNORED, Arrays, Task, join_answers

_BATCH_ROWS = 16
_RANKED_BATCHES = 12
_PASSES_UP = ("Reshape", "Transpose", "Squeeze", "Unsqueeze")
_PRODUCTS = ("MatMul", "Convolution", "GroupConvolution")


@dataclass(frozen=True)
class Guard:
    """What int8 is held against: validation rows, and the loss of the task's metric that it may cause.

    Args:
        max_drop: metric of the fp32 model minus that of the int8 one, on these rows.
        time_limit_s: seconds to find what to spare; one ranking and one step are always taken.
    """

    task: Task
    inputs: Sequence[Any]
    labels: Sequence[Any]
    max_drop: float
    time_limit_s: float


@dataclass(frozen=True)
class Guarded:
    """An int8 model; the operations that stay in fp32, and the drop that is left on the guard's rows."""

    model: Any
    spared: tuple[str, ...]
    drop: float


def quantize_guarded(
    model: Any, calibration: Sequence[Arrays], guard: Guard, *, transformer: bool
) -> Guarded:
    """Static int8 whose metric on the guard's rows is at most `max_drop` below fp32's.

    Where the time is up first, as many operations are spared as there was time for.
    """
    import nncf

    judge = _Judge(guard)
    reference = judge.metric(_compile(model))
    full = quantize_openvino(model.clone(), calibration, transformer=transformer)
    started = time.perf_counter()
    compiled = _compile(full)
    compile_s = time.perf_counter() - started
    drop = reference - judge.metric(compiled)
    if drop <= guard.max_drop:
        return Guarded(full, (), drop)
    pass_s = time.perf_counter() - started - compile_s
    names = _quantized(full)
    steps, ranked = _afford(guard.time_limit_s, len(names), compile_s, pass_s, len(judge.items))

    def validate(candidate: Any, items: Iterable[_Item]) -> tuple[float, list[list[NDArray[Any]]]]:
        listed = list(items)
        outputs = [judge.run(candidate, item) for item in listed]
        return judge.score(listed, outputs), [[output] for output in outputs]

    found = nncf.quantize_with_accuracy_control(
        model,
        nncf.Dataset(list(calibration)),
        nncf.Dataset(judge.items, judge.fed),
        validate,
        max_drop=guard.max_drop,
        drop_type=nncf.DropType.ABSOLUTE,
        model_type=nncf.ModelType.TRANSFORMER if transformer else None,
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(calibration),
        advanced_quantization_parameters=nncf.AdvancedQuantizationParameters(
            # nncf 3.4 gives a spared product its first weights back and leaves its input smoothed.
            smooth_quant_alphas=nncf.AdvancedSmoothQuantParameters(convolution=-1, matmul=-1)
        ),
        advanced_accuracy_restorer_parameters=nncf.AdvancedAccuracyRestorerParameters(
            max_num_iterations=steps, ranking_subset_size=ranked, num_ranking_workers=1
        ),
    )
    left = reference - judge.metric(_compile(found))
    if left > drop:
        # Without smoothing, and with too few steps, it can end up worse than plain int8.
        return Guarded(full, (), drop)
    kept = set(_quantized(found))
    return Guarded(found, tuple(name for name in names if name not in kept), left)


@dataclass(frozen=True)
class _Item:
    """A batch; `truth` at each of its places."""

    rows: int
    arrays: Arrays
    truth: NDArray[np.int64]


class _Judge:
    """Encodes a guard's rows once and scores compiled models on them."""

    def __init__(self, guard: Guard) -> None:
        self.task = guard.task
        order = np.argsort(self.task.lengths(guard.inputs), kind="stable")
        self.items = [
            self._item(guard, order[start : start + _BATCH_ROWS])
            for start in range(0, len(order), _BATCH_ROWS)
        ]

    def fed(self, item: _Item) -> Arrays:
        """What the model takes of a batch."""
        return {name: item.arrays[name] for name in self.task.inputs}

    def run(self, compiled: Any, item: _Item) -> NDArray[Any]:
        """The logits of a batch."""
        logits: NDArray[Any] = compiled(self.fed(item))[0].copy()
        return logits

    def score(self, items: Sequence[_Item], outputs: Sequence[NDArray[Any]]) -> float:
        """The task's metric over the rows of some batches."""
        parts, rows = [], 0
        for item, logits in zip(items, outputs, strict=True):
            answers = self.task.read({"logits": logits}, item.arrays)
            parts.append((np.arange(rows, rows + item.rows), answers))
            rows += item.rows
        truth = np.concatenate([item.truth for item in items])
        counts = self.task.tally(join_answers(parts), truth, rows)
        return float(self.task.metric(counts.sum(axis=0)))

    def metric(self, compiled: Any) -> float:
        """The task's metric over all rows."""
        return self.score(self.items, [self.run(compiled, item) for item in self.items])

    def _item(self, guard: Guard, rows: NDArray[np.int64]) -> _Item:
        arrays = self.task.encode([guard.inputs[row] for row in rows])
        targets = self.task.targets(arrays, [guard.labels[row] for row in rows])
        return _Item(len(rows), arrays, targets[targets != IGNORED])


def _afford(
    limit_s: float, operations: int, compile_s: float, pass_s: float, batches: int
) -> tuple[int, int]:
    """Steps, and batches that a ranking reads, within a time.

    nncf ranks once, and again after a step that made it worse: after every other one at most.
    """
    batch_s = pass_s / batches
    room = 0.4 * limit_s / max(operations, 1) - compile_s
    ranked = int(np.clip(room / batch_s, 1, min(_RANKED_BATCHES, batches)))
    ranking_s = operations * (compile_s + ranked * batch_s)
    steps = int((limit_s - ranking_s) / (compile_s + pass_s + ranking_s / 2))
    return max(1, steps), ranked


def _compile(model: Any) -> Any:
    import openvino

    # As the engine runs it: in fp32 where nothing is quantized, whatever the CPU could do.
    return openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})


def _quantized(model: Any) -> list[str]:
    """Names of products whose inputs all are int8, in the model's order."""
    return [
        _short(node.get_friendly_name())
        for node in model.get_ordered_ops()
        if node.get_type_name() in _PRODUCTS
        and all(_is_int8(node.input_value(port).get_node()) for port in range(2))
    ]


def _is_int8(node: Any) -> bool:
    kind = node.get_type_name()
    if kind == "FakeQuantize":
        return True
    if kind == "Constant":
        return node.get_element_type().to_string() in ("i8", "u8")
    if kind in _PASSES_UP or (kind in ("Multiply", "Subtract", "Convert") and _is_weight(node)):
        return _is_int8(node.input_value(0).get_node())
    return False


def _is_weight(node: Any) -> bool:
    """Whether a node is made of constants alone."""
    if node.get_type_name() == "Constant":
        return True
    inputs = [value.get_node() for value in node.input_values()]
    return bool(inputs) and all(_is_weight(given) for given in inputs)


def _short(name: str) -> str:
    for suffix in ("/WithoutBiases", "/MatMul", "/Gemm", "/Conv"):
        name = name.removesuffix(suffix)
    return name.removeprefix("/").removeprefix("model/")
