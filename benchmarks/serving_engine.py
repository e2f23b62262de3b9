"""The bare engine on one core: `python -m benchmarks.serving_engine BUNDLE CORE`, texts on standard input."""

from __future__ import annotations

import json
import sys
import time

import numpy as np

from equipoise import hardware
from equipoise.bundle import open_bundle
from equipoise.engines import Predictor, open_engine

SECONDS = 2.0


def main() -> None:
    """Print rows a second by batch size, and the p50 of one row."""
    given = json.load(sys.stdin)
    hardware.pin_to([int(sys.argv[2])])
    bundle = open_bundle(sys.argv[1])
    engine = open_engine(bundle.manifest.engine, bundle.model_folder, bundle.manifest.precision, threads=1)
    predictor = Predictor(bundle.load_task(), engine)
    texts: list[str] = given["texts"]
    rps: dict[int, float] = {}
    singles: list[float] = []
    for batch in given["batches"]:
        predictor.predict(texts[:batch])
        rows, start = 0, time.perf_counter()
        while (now := time.perf_counter()) < start + SECONDS:
            chunk = [texts[(rows + offset) % len(texts)] for offset in range(batch)]
            predictor.predict(chunk)
            rows += batch
            if batch == 1:
                singles.append((time.perf_counter() - now) * 1000)
        rps[batch] = rows / (time.perf_counter() - start)
    print(json.dumps({"rps": rps, "p50_ms": float(np.median(singles))}))


if __name__ == "__main__":
    main()
