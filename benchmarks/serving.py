"""Requests a second over HTTP, side by side: what a bundle gains, and what the way to it costs.

Served in turn, on the same cores, with the same client and the same rows: the usual tutorial (a transformers
pipeline of the fp32 teacher on a default Ray Serve), the same tuned by hand (a replica a core, one thread
each, batches), the bundle behind Serve's own batching and proxy, a trivial echo behind Equipoise's front, and
the bundle as `equipoise serve` serves it. The bare engine is the bundle's `Predictor` in one process a core,
at its best batch.

Each leg is put on record when it ends; the command goes on with those that are missing, and writes the
figures once all are there.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.record import REPOSITORY, Measured, checkout_revision, measured_here_and_now, write_result
from benchmarks.serving_engine import bare_engine
from benchmarks.serving_load import measure_leg
from benchmarks.serving_rows import BenchmarkRows

from equipoise import hardware, storage
from equipoise.bundle import locate_bundle, open_bundle
from equipoise.data import load_rows
from equipoise.errors import EquipoiseError, ServiceError
from equipoise.runs import RunFolder

LEGS = ("engine", "tutorial", "tuned", "defaults", "echo", "equipoise")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what is missing, and write `results/serving.json` once nothing is."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving", description=__doc__)
    parser.add_argument(
        "--run", default="runs/demo", help="finished run of a text classifier (default: %(default)s)"
    )
    parser.add_argument("--rows", type=int, default=600, help="test rows (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=8, help="length of each load (default: %(default)s)")
    parser.add_argument("--leg", choices=LEGS, help="measure this one alone, also where it is on record")
    parser.add_argument(
        "--legs",
        type=Path,
        default=REPOSITORY / "runs" / "benchmarks" / "serving",
        help="where legs are kept (default: %(default)s)",
    )
    given = parser.parse_args(arguments)
    command = (
        f"python -m benchmarks.serving --run {given.run} --rows {given.rows} --seconds {given.seconds:g}"
    )
    try:
        legs = measure(Path(given.run).absolute(), given.rows, given.seconds, given.leg, given.legs)
    except EquipoiseError as error:
        sys.exit(f"benchmarks.serving: {error}")
    missing = [name for name in LEGS if name not in legs]
    if missing:
        print(f"legs that are missing still: {', '.join(missing)}")
    elif given.leg is None:
        print(write_result("serving", command, figures(legs), measured_here_and_now()))


def measure(run: Path, rows: int, seconds: float, only: str | None, kept: Path) -> dict[str, dict[str, Any]]:
    """Every leg that is on record for this bundle, machine and revision, after those that were asked for."""
    bundle = open_bundle(locate_bundle(run))
    machine = hardware.describe_hardware()
    basis = {
        "fingerprint": hardware.fingerprint(machine),
        "revision": checkout_revision(),
        "bundle": bundle.manifest.digest,
        "rows": rows,
        "seconds": seconds,
    }
    legs: dict[str, dict[str, Any]] = {}
    for name in LEGS:
        file = str(kept / f"{name}.json")
        record = storage.read_json(file) if Path(file).is_file() else {}
        if record.get("basis") == basis:
            legs[name] = record["leg"]
    sample = sample_rows(run, rows)
    for name in [only] if only else [name for name in LEGS if name not in legs]:
        start = time.perf_counter()
        if name == "engine":
            legs[name] = bare_engine(bundle.folder, sample.texts)
        else:
            engine = legs.get("engine") if name == "equipoise" else None
            if name == "equipoise" and engine is None:
                raise ServiceError("is held against the bare engine", where=name, remedy="--leg engine first")
            legs[name] = measure_leg(name, bundle, run / "teacher", sample, seconds, engine)
        storage.put_json(str(kept / f"{name}.json"), {"basis": basis, "leg": legs[name]})
        print(f"{name} ({time.perf_counter() - start:.0f} s): {told(legs[name])}", flush=True)
    return legs


def sample_rows(run: Path, count: int) -> BenchmarkRows:
    """The same rows of the run's test split for every leg, drawn by a fixed seed: files may be sorted."""
    config = RunFolder(str(run)).read("config.json")["data"]
    found = load_rows(config["test"], config["text_column"], config["label_column"], 1 << 20)
    chosen = np.random.default_rng(13).permutation(len(found.inputs))[:count].tolist()
    return BenchmarkRows([found.inputs[row] for row in chosen], [str(found.labels[row]) for row in chosen])


def figures(legs: dict[str, dict[str, Any]]) -> list[Measured]:
    """What the legs come to, beside the goals."""
    own, tutorial = legs["equipoise"], legs["tutorial"]
    bound = 1 / (1 / legs["echo"]["rps"] + 1 / legs["engine"]["rps"])
    lost = 100 * (tutorial["accuracy"] - own["accuracy"])
    return [
        Measured(
            "requests/s, over the tutorial deployment of the fp32 teacher",
            own["rps"] / tutorial["rps"],
            100,
            "higher",
        ),
        Measured("requests/s, over that tuned by hand", own["rps"] / legs["tuned"]["rps"], 50, "higher"),
        Measured(
            "requests/s, over the same bundle behind Serve's defaults",
            own["rps"] / legs["defaults"]["rps"],
            5,
            "higher",
        ),
        Measured("requests/s, share of 1/(1/echo + 1/engine)", own["rps"] / bound, 0.75, "higher"),
        Measured("accuracy below the tutorial's on the same rows, points", lost, 1, "lower"),
        Measured("p50 at 20% load, ms over the engine's own", own["added_p50_ms"], 2, "lower"),
        Measured("resident memory of a replica, MiB", own["replica_mib"], 400, "lower"),
        Measured("failed requests", own["failures"], 0, "lower"),
    ]


def told(leg: dict[str, Any]) -> str:
    """A leg's figures as words."""
    return ", ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in leg.items()
        if not isinstance(value, dict)
    ) + "".join(
        f"\n  {name}: " + ", ".join(f"{part} {spent:.3f}" for part, spent in value.items())
        for name, value in leg.items()
        if isinstance(value, dict)
    )


if __name__ == "__main__":
    main()
