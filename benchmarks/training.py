"""The step loop against a bare one, what distillation and bf16 make of a step, and padding.

Both sides of a ratio take turns in one process, and the ratio is the median over the turns: a machine
that others use too slows both.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.record import Measured, measured_here_and_now, write_result

from equipoise import hardware
from equipoise.config.training import TrainingConfig
from equipoise.errors import EquipoiseError
from equipoise.ray_runtime import free_port, prepare_environment
from equipoise.training.batches import epoch_batches, padding_share, worker_share
from equipoise.training.deepspeed_config import build_deepspeed_config
from equipoise.training.examples import Examples, take_batch
from equipoise.training.job import TrainingJob
from equipoise.training.loop import Loop
from equipoise.training.losses import Objective

_ROWS, _LONGEST, _BATCH, _CLASSES = 32 * 24, 128, 32, 8


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, write `results/training.json` and print its path."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training", description=__doc__)
    parser.add_argument("--turns", type=int, default=5, help="turns of each side (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=2, help="steps a turn (default: %(default)s)")
    given = parser.parse_args(arguments)
    prepare_environment()
    _open_group()
    try:
        with tempfile.TemporaryDirectory() as folder:
            bench = Bench(_save_model(Path(folder)), given.turns, given.steps)
            figures = [
                *(bench.against_bare(stage) for stage in (1, 3)),
                bench.distillation(),
                bench.half_precision(),
                padding(),
            ]
    except EquipoiseError as error:
        sys.exit(f"benchmarks.training: {error}")
    command = f"python -m benchmarks.training --turns {given.turns} --steps {given.steps}"
    print(write_result("training", command, figures, measured_here_and_now()))


class Bench:
    """A BERT of MiniLM's size, 32 rows of 128 tokens a step, one worker on one thread."""

    def __init__(self, model: Path, turns: int, steps: int) -> None:
        self.model, self.turns, self.steps = model, turns, steps
        draw = np.random.default_rng(0)
        self.examples = Examples(
            arrays={
                "input_ids": draw.integers(1, 30_000, (_ROWS, _LONGEST)),
                "attention_mask": np.ones((_ROWS, _LONGEST), dtype=np.int64),
            },
            targets=draw.integers(0, _CLASSES, _ROWS),
            lengths=np.full(_ROWS, _LONGEST, dtype=np.int64),
            teacher_logits=draw.normal(size=(_ROWS, _CLASSES)).astype(np.float32),
        )
        self.batches = epoch_batches(self.examples.lengths, _BATCH, 5, 0)

    def against_bare(self, stage: int) -> Measured:
        """Tokens a second of the loop over those of a bare one, on the same DeepSpeed settings."""
        loop, bare = self.loop(stage), Bare(self.loop(stage))
        ratio = self._ratio(bare.step, loop.step)
        return Measured(f"tokens/s of the step loop over a bare script, ZeRO {stage}", ratio, 0.97, "higher")

    def distillation(self) -> Measured:
        """Seconds of a step with cached teacher logits over a plain one."""
        plain, taught = self.loop(1), self.loop(1, objective=Objective(2.0, 0.7))
        return Measured(
            "step with cached teacher outputs over a plain step",
            self._ratio(taught.step, plain.step),
            1.1,
            "lower",
        )

    def half_precision(self) -> Measured:
        """Speed of bf16 over fp32; prints where a step's time goes."""
        wide, half = self.loop(1), self.loop(1, precision="bf16")
        for name, loop in (("fp32", wide), ("bf16", half)):
            split = ", ".join(f"{part} {share:.0%}" for part, share in self.split(loop).items())
            sys.stderr.write(f"{name} step: {split}\n")
        return Measured("bf16 over fp32 at 32×128 a worker", self._ratio(wide.step, half.step), 1.3, "higher")

    def loop(self, stage: int, precision: str = "fp32", objective: Objective | None = None) -> Loop:
        """The project's own loop in this process."""
        training = TrainingConfig.model_validate(
            {"workers": 1, "batch_size": _BATCH, "zero_stage": stage, "precision": precision}
        )
        job = TrainingJob(
            title="benchmark",
            model_folder=str(self.model),
            model_class="AutoModelForSequenceClassification",
            labels=None,
            layers=None,
            freeze_embeddings=False,
            deepspeed=build_deepspeed_config(training, workers=1, total_steps=1000, learning_rate=1e-5),
            batch_size=_BATCH,
            total_steps=1000,
            seed=5,
            objective=objective or Objective(),
        )
        examples = self.examples if objective else replace(self.examples, teacher_logits=None)
        return Loop(job, examples, 0, 1)

    def split(self, loop: Loop) -> dict[str, float]:
        """Shares of a step by part, from steps that are timed part by part.

        Communication is the reduction over workers; with one worker it is what DeepSpeed does for it anyway.
        """
        spent = dict.fromkeys(("data", "forward", "backward", "communication", "optimizer"), 0.0)
        for batch in self.batches[: self.steps + 1]:
            marks = [time.perf_counter()]
            taken = take_batch(loop.examples, batch, loop.engine.device, loop.dtype)
            marks.append(time.perf_counter())
            from equipoise.training.losses import compute_loss

            loss = compute_loss(loop.engine(**taken.inputs).logits, taken, loop.job.objective)
            marks.append(time.perf_counter())
            reduced = _time_calls(loop.engine, "allreduce_gradients")
            loop.engine.backward(loss)
            marks.append(time.perf_counter())
            loop.engine.step()
            marks.append(time.perf_counter())
            data, forward, backward, optimizer = np.diff(marks)
            del loop.engine.allreduce_gradients
            spent["data"] += data
            spent["forward"] += forward
            spent["backward"] += backward - reduced[0]
            spent["communication"] += reduced[0]
            spent["optimizer"] += optimizer
        total = sum(spent.values())
        return {name: seconds / total for name, seconds in spent.items()}

    def _ratio(self, above: Callable[..., Any], below: Callable[..., Any]) -> float:
        """Seconds of one side over those of the other, median over turns that alternate who begins."""
        self._turn(above), self._turn(below)
        ratios = []
        for turn in range(self.turns):
            if turn % 2:
                seconds = self._turn(below)
                ratios.append(self._turn(above) / seconds)
            else:
                ratios.append(self._turn(above) / self._turn(below))
        return statistics.median(ratios)

    def _turn(self, step: Callable[..., Any]) -> float:
        started = time.perf_counter()
        for number in range(self.steps):
            step(number, self.batches[number])
        return time.perf_counter() - started


class Bare:
    """What a script of one's own does: the same engine, tensors made beforehand, nothing watched."""

    def __init__(self, loop: Loop) -> None:
        from torch.nn import functional

        self.engine, self.cross_entropy = loop.engine, functional.cross_entropy
        self.made = [
            take_batch(loop.examples, worker_share(batch, 0, 1)[0], "cpu")
            for batch in epoch_batches(loop.examples.lengths, _BATCH, 5, 0)
        ]

    def step(self, number: int, _batch: Any) -> None:
        """Forward, loss, backward, optimizer."""
        batch = self.made[number]
        loss = self.cross_entropy(self.engine(**batch.inputs).logits, batch.targets)
        self.engine.backward(loss)
        self.engine.step()


def padding() -> Measured:
    """Padding among the tokens of three epochs of CoNLL-2003 at batch 32, shuffled each epoch."""
    from equipoise.config.model import ModelConfig
    from equipoise.data import load_rows, sample_model
    from equipoise.tasks import find_task

    folder = sample_model("all-minilm-l6-v2")
    rows = load_rows("sample://conll2003/train", "text", "label", 1 << 20, "words")
    task = find_task("token_classification").create(
        folder, ["O"], ModelConfig(teacher=str(folder), max_length=128)
    )
    lengths = task.lengths(rows.inputs)
    batches = [batch for epoch in range(3) for batch in epoch_batches(lengths, 32, 13, epoch)]
    return Measured("padding share on CoNLL-2003 at batch 32", padding_share(lengths, batches), 0.1, "lower")


def _time_calls(engine: Any, name: str) -> list[float]:
    """Let a method of an object add its seconds to the list that is returned."""
    inner, spent = getattr(engine, name), [0.0]

    def timed(*arguments: Any, **options: Any) -> Any:
        started = time.perf_counter()
        try:
            return inner(*arguments, **options)
        finally:
            spent[0] += time.perf_counter() - started

    setattr(engine, name, timed)
    return spent


def _open_group() -> None:
    import torch

    os.environ.update(
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(free_port()), RANK="0", WORLD_SIZE="1", LOCAL_RANK="0"
    )
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", rank=0, world_size=1)
    sys.stderr.write(f"{hardware.describe_hardware()['cpu']}, one worker on one thread\n")


def _save_model(folder: Path) -> Path:
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(
        hidden_size=384,
        num_hidden_layers=6,
        num_attention_heads=12,
        intermediate_size=1536,
        num_labels=_CLASSES,
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    return folder


if __name__ == "__main__":
    main()
