"""The bare engine: `python -m benchmarks.serving_engine BUNDLE CORE` on one core, texts on standard input."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from equipoise import hardware
from equipoise.bundle import open_bundle
from equipoise.engines import Predictor, open_engine
from equipoise.errors import ServiceError

SECONDS = 2.0
BATCHES = (1, 8, 16, 32)
_LIMIT_S = 280


def bare_engine(bundle: Path, texts: list[str]) -> dict[str, Any]:
    """Rows a second of one process a core at the best batch, the p50 of one row, and who has its time.

    Raises:
        ServiceError: a process fails, or takes minutes.
    """
    command = [sys.executable, "-m", "benchmarks.serving_engine", str(bundle)]
    processes = [
        subprocess.Popen([*command, str(core)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for core in hardware.usable_cores()
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(json.dumps(texts))
        process.stdin.close()
        process.stdin = None
    results = []
    try:
        for process in processes:
            output, _ = process.communicate(timeout=_LIMIT_S)
            results.append(json.loads(output))
    except (subprocess.TimeoutExpired, ValueError) as error:
        raise ServiceError(f"the engine did not end well: {error}", where=str(bundle)) from error
    finally:
        for process in processes:
            process.kill()
            process.wait()
    totals = {batch: sum(result["rps"][str(batch)] for result in results) for batch in BATCHES}
    best = max(totals, key=lambda batch: totals[batch])
    return {
        "rps": totals[best],
        "p50_ms": sum(result["p50_ms"] for result in results) / len(results),
        "best_batch": best,
        "shares": {
            part: sum(result["shares"][str(best)][part] for result in results) / len(results)
            for part in ("tokenizer", "engine", "decoder")
        },
    }


def main() -> None:
    """Print rows a second and shares of the time by batch size, and the p50 of one row."""
    texts: list[str] = json.load(sys.stdin)
    hardware.pin_to([int(sys.argv[2])])
    bundle = open_bundle(sys.argv[1])
    engine = open_engine(bundle.manifest.engine, bundle.model_folder, bundle.manifest.precision, threads=1)
    predictor = Predictor(bundle.load_task(), engine)
    rps: dict[int, float] = {}
    shares: dict[int, dict[str, float]] = {}
    singles: list[float] = []
    for batch in BATCHES:
        predictor.predict(texts[:batch])
        rows, start = 0, time.perf_counter()
        spent = {"tokenizer": 0.0, "engine": 0.0, "decoder": 0.0}
        while time.perf_counter() < start + SECONDS:
            chunk = [texts[(rows + offset) % len(texts)] for offset in range(batch)]
            taken_s = time_parts(predictor, chunk, spent)
            rows += batch
            if batch == 1:
                singles.append(taken_s * 1000)
        rps[batch] = rows / (time.perf_counter() - start)
        shares[batch] = {part: seconds / sum(spent.values()) for part, seconds in spent.items()}
    print(json.dumps({"rps": rps, "p50_ms": float(np.median(singles)), "shares": shares}))


def time_parts(predictor: Predictor, chunk: list[str], spent: dict[str, float]) -> float:
    """`Predictor.predict` in its three parts; adds the seconds of each, and returns their sum."""
    task, begun = predictor.task, time.perf_counter()
    arrays = task.encode(chunk)
    encoded = time.perf_counter()
    outputs = predictor.engine.run({name: arrays[name] for name in task.inputs})
    run = time.perf_counter()
    task.decode(outputs, arrays, chunk)
    ended = time.perf_counter()
    spent["tokenizer"] += encoded - begun
    spent["engine"] += run - encoded
    spent["decoder"] += ended - run
    return ended - begun


if __name__ == "__main__":
    main()
