"""What a teacher writes after prompts: computed once, in parallel Ray tasks, cached on disk."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from equipoise import storage
from equipoise.costs import ledger_clock
from equipoise.observability import progress
from equipoise.tasks import Task
from equipoise.training.teacher_outputs import TaskUse

_CHUNK_PROMPTS = 16


def teacher_texts(
    teacher: Path,
    task: Task,
    prompts: Sequence[str],
    cache: Path,
    *,
    max_tokens: int,
    on_task: Callable[[TaskUse], None] | None = None,
) -> list[str]:
    """The likeliest continuation, token by token, of each prompt; an empty one where there is no prompt.

    Students that learn these learn the teacher's own distribution at its mode (Kim and Rush, 2016).

    Args:
        on_task: told of each Ray task that ran, on one core each.
    """
    import ray

    content = hashlib.sha256(json.dumps([list(prompts), max_tokens, task.describe()]).encode())
    content.update(storage.sha256_file(teacher / "model.safetensors").encode())
    file = cache / f"{content.hexdigest()[:16]}.json"
    if file.is_file():
        kept: list[str] = storage.read_json(str(file))
        return kept
    run = ray.remote(num_cpus=1)(_texts_of)
    starts = range(0, len(prompts), _CHUNK_PROMPTS)
    pending = {
        run.remote(
            str(teacher), task.describe(), list(prompts[start : start + _CHUNK_PROMPTS]), max_tokens
        ): start
        for start in starts
    }
    found: dict[int, list[str]] = {}
    while pending:
        [ready], _ = ray.wait(list(pending), num_returns=1)
        found[pending.pop(ready)], use = ray.get(ready)
        if on_task is not None:
            on_task(use)
        progress.tell("teacher's texts", sum(map(len, found.values())), len(prompts))
    texts = [text for start in sorted(found) for text in found[start]]
    storage.put_json(str(file), texts)
    return texts


def _texts_of(
    teacher: str, description: dict[str, Any], prompts: list[str], max_tokens: int
) -> tuple[list[str], TaskUse]:
    from equipoise.engines.generation import GenerationParams
    from equipoise.engines.torch_writer import open_writer
    from equipoise.tasks import find_task

    start, cpu_begun = ledger_clock.now(), time.process_time()
    task: Any = find_task(description["name"]).load(Path(teacher), description)
    engine = open_writer(Path(teacher), "fp32")
    stops = () if task.end_id is None else (task.end_id,)
    params = GenerationParams(max_tokens=max_tokens, stop_ids=stops)
    texts = [
        task.text_of([token.id for token in engine.write(task.prompt_ids(prompt, max_tokens), params)])
        if prompt
        else ""
        for prompt in prompts
    ]
    return texts, TaskUse(start, ledger_clock.now(), time.process_time() - cpu_begun)
