"""A run folder of made-up candidates, for timing what reads many of them; no figure in it was measured."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np

from equipoise.compression.structure import recipe_hash
from equipoise.config import RunConfig
from equipoise.costs.lifecycle import price_candidate
from equipoise.costs.price_book import load_prices
from equipoise.runs import Agreement, Candidate, Figure, Quality, Recipe, RunFolder, Speed

_LAYERS = 12
_RUNTIMES = (("torch", "fp32"), ("onnxruntime", "int8"), ("openvino", "bf16"), ("openvino", "int8"))


def write_synthetic_run(folder: Path, candidates: int, seed: int = 0) -> RunFolder:
    """`config.json` and as many candidates, each of another recipe of a twelve-layer teacher."""
    config = RunConfig.model_validate(
        {"name": "synthetic", "data": {"train": "a", "test": "b"}, "model": {"teacher": "c"}}
    )
    run = RunFolder(folder)
    run.put(config.model_dump(mode="json"), "config.json")
    book, rng = load_prices(config.cost), np.random.default_rng(seed)
    structures = (
        layers for depth in range(_LAYERS, 0, -1) for layers in itertools.combinations(range(_LAYERS), depth)
    )
    recipes = ((layers, *runtime) for layers in structures for runtime in _RUNTIMES)
    for layers, engine, precision in itertools.islice(recipes, candidates):
        recipe = Recipe(
            depth=len(layers),
            layers=layers,
            distilled=len(layers) < _LAYERS,
            engine=engine,
            precision=precision,
        )
        speedup = rng.uniform(0.8, 1.2) * _LAYERS / len(layers) * (3 if precision == "int8" else 1)
        metric = 0.95 - 0.1 * (1 - len(layers) / _LAYERS) ** 2 - rng.uniform(0, 0.01)
        is_teacher = not recipe.distilled and (engine, precision) == ("torch", "fp32")
        size = int(4e8 * len(layers) / _LAYERS / (4 if precision == "int8" else 1))
        candidate = Candidate(
            recipe_hash=recipe_hash(recipe),
            recipe=recipe,
            is_teacher=is_teacher,
            eligible=True,
            quality=Quality(
                metric_name="accuracy",
                metric=_figure(metric, 0.01),
                macro_f1=_figure(metric - 0.02, 0.02),
                robustness=_figure(0.95 - rng.uniform(0, 0.1), 0.01),
                corruptions={f"corruption {index}": metric - 0.05 for index in range(12)},
                calibration_error=_figure(0.03, 0.01),
            ),
            speed=Speed(
                latency_p50_ms=_figure(40 / speedup, 1),
                latency_p99_ms=_figure(60 / speedup, 2),
                throughput_rps=_figure(30 * speedup, 1),
                batch_size=32,
                threads=1,
            ),
            agreement=Agreement(
                max_logit_difference=0.01,
                changed_labels=0.001,
                neighbour_changes=0.0,
                max_neighbour_difference=0.0,
                rows=500,
            ),
            cost=price_candidate(
                cost=config.cost,
                book=book,
                throughput_rps=30 * speedup,
                stored_bytes=size,
                training_core_seconds=4000,
                search_core_seconds=0 if is_teacher else 90_000,
                labelled_rows=5000,
            ),
            bytes=size,
            parameters=size // 4,
            metric_drop=_figure(0.95 - metric, 0.01),
            hardware={"cpu": "made up", "cores": 2, "fingerprint": "0" * 12},
            seed=13,
            revision="made up",
            seconds={"train": 60.0},
        )
        run.put(candidate.model_dump(mode="json"), "candidates", f"{candidate.recipe_hash}.json")
    return run


def _figure(value: float, half: float) -> Figure:
    return Figure(value=value, low=value - half, high=value + half, n=1000)
