"""What low-rank adapters on a few hundred documents do to a language model's perplexity on held-out ones."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.record import REPOSITORY, Measured, measured_here_and_now, write_result
from numpy.typing import NDArray

from equipoise import hardware, ray_runtime
from equipoise.config import RunConfig, load_config
from equipoise.data import prepare_data
from equipoise.engines import Predictor, open_engine
from equipoise.measurement.bootstrap import draw_resamples, interval, resampled_sums
from equipoise.tasks import Task, find_task
from equipoise.training.encoding import encode_examples
from equipoise.training.finetune import finetune_teacher
from equipoise.training.pretrained import resolve_pretrained

CONFIG = REPOSITORY / "jobs" / "configs" / "smollm2-r8.yaml"


def main() -> None:
    """Fine-tune, score both models on the same test rows, write `results/language_model.json`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train-rows", type=int, default=300)
    parser.add_argument("--test-rows", type=int, default=64)
    parser.add_argument("--max-length", type=int, default=128)
    given = parser.parse_args()
    ray_runtime.prepare_environment()
    shipped = load_config(CONFIG)
    rows = {"train_rows": given.train_rows, "test_rows": given.test_rows}
    config = shipped.model_copy(
        update={
            "data": shipped.data.model_copy(update=rows),
            "model": shipped.model.model_copy(update={"max_length": given.max_length}),
        }
    )
    before, after = measure(config)
    draws = draw_resamples(len(before), config.measurement.resamples, config.seed)
    ratios = perplexity(resampled_sums(after, draws)) / perplexity(resampled_sums(before, draws))
    whole = [float(perplexity(sums.sum(axis=0))) for sums in (before, after)]
    ratio = interval(whole[1] / whole[0], ratios, len(before))
    print(f"perplexity {whole[0]:.2f} before, {whole[1]:.2f} after, on {len(before)} test documents")
    print(f"ratio {ratio.value:.3f} (95% {ratio.low:.3f} to {ratio.high:.3f})")
    figure = Measured("held-out perplexity after fine-tuning over before", ratio.value, 0.9, "lower")
    command = (
        f"python -m benchmarks.language_model --train-rows {given.train_rows} "
        f"--test-rows {given.test_rows} --max-length {given.max_length}"
    )
    print(write_result("language_model", command, [figure], measured_here_and_now()))


def measure(config: RunConfig) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Log-likelihood and tokens of each test row, before and after fine-tuning; shape (rows, 2) each."""
    kind = find_task(config.task)
    base = resolve_pretrained(config.model, kind.files)
    data = prepare_data(config, kind.layout)
    task = kind.create(base, data.labels, config.model)
    before = tally(task, base, data.test.inputs)
    ray_runtime.start_ray()
    try:
        with tempfile.TemporaryDirectory() as folder:
            target = Path(folder) / "teacher"
            examples = encode_examples(task, data.train.inputs, data.train.labels)
            finetune_teacher(config, base, examples, 0, target, Path(folder) / "scratch")
            return before, tally(task, target, data.test.inputs)
    finally:
        ray_runtime.stop_ray()


def tally(task: Task, model: Path, inputs: Sequence[Any]) -> NDArray[np.float64]:
    """What the model gives the rows, in PyTorch and fp32."""
    engine = open_engine("torch", model, "fp32", len(hardware.usable_cores()))
    answers = Predictor(task, engine).answers(inputs)
    return task.tally(answers, np.empty(0, np.int64), len(inputs))


def perplexity(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """From (log-likelihood, tokens), shape (..., 2) to (...)."""
    found: NDArray[np.float64] = np.exp(-sums[..., 0] / sums[..., 1])
    return found


if __name__ == "__main__":
    main()
