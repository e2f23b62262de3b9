from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from equipoise.config.cost import CostConfig
from equipoise.costs.lifecycle import price_candidate
from equipoise.costs.price_book import load_prices
from equipoise.runs import Agreement, Candidate, Figure, Quality, Recipe, RunFolder, Speed
from equipoise.runs.predictions import Predictions, put_predictions

LAYERS = {6: (0, 1, 2, 3, 4, 5), 3: (0, 2, 5), 2: (0, 5), 1: (0,)}
COST = CostConfig(rps=100, engineer_hours_per_month=2, retrainings_per_year=4)


def figure(value: float, half: float = 0.0) -> Figure:
    return Figure(value=value, low=value - half, high=value + half, n=1000)


def build_candidate(
    depth: int,
    engine: str,
    precision: str,
    *,
    metric: float,
    rps: float,
    p99_ms: float,
    megabytes: float,
    rejection: str | None = None,
    cost: CostConfig = COST,
    machine: str = "a1b2c3",
) -> Candidate:
    teacher = (depth, engine, precision) == (6, "torch", "fp32")
    return Candidate(
        recipe_hash=f"{depth}{engine}{precision}",
        recipe=Recipe(
            depth=depth, layers=LAYERS[depth], distilled=depth < 6, engine=engine, precision=precision
        ),
        is_teacher=teacher,
        eligible=rejection is None,
        rejection=rejection,
        quality=Quality(
            metric_name="accuracy",
            metric=figure(metric, 0.008),
            macro_f1=figure(metric - 0.01, 0.01),
            robustness=figure(0.85 + depth * 0.01, 0.01),
            worst_corruption="typos 20%",
            worst_corruption_metric=metric - 0.09 + depth * 0.005,
            corruptions={"typos 10%": metric - 0.04, "typos 20%": metric - 0.09 + depth * 0.005},
            gap=0.03,
            calibration_error=figure(0.02, 0.005),
        ),
        speed=Speed(
            latency_p50_ms=figure(p99_ms * 0.8, 0.1),
            latency_p99_ms=figure(p99_ms, 0.2),
            throughput_rps=figure(rps, rps * 0.02),
            batch_size=32,
            threads=1,
        ),
        agreement=Agreement(
            max_logit_difference=0.01,
            changed_labels=0.0,
            neighbour_changes=0.0,
            max_neighbour_difference=0.0,
            rows=500,
        ),
        cost=price_candidate(
            cost=cost,
            book=load_prices(cost),
            throughput_rps=rps,
            stored_bytes=int(megabytes * 1e6),
            training_core_seconds=40_000,
            search_core_seconds=0 if teacher else 90_000,
            labelled_rows=5000,
        ),
        bytes=int(megabytes * 1e6),
        parameters=22_700_000,
        metric_drop=figure(0.95 - metric, 0.006),
        hardware={
            "cpu": "Xeon 8488C", "cores": 2, "memory_gib": 7.6, "flags": ["amx_int8"], "gpus": [],
            "libraries": {"torch": "2.13.0"}, "fingerprint": machine,
        },
        seed=13,
        revision="abc1234",
        seconds={"train": 120.0},
        measured_at=f"2026-11-25T01:{60 - depth * 5 - len(engine):02d}:00+00:00",
    )  # fmt: skip


def fleet() -> list[Candidate]:
    return [
        build_candidate(6, "torch", "fp32", metric=0.95, rps=45, p99_ms=26, megabytes=91),
        build_candidate(6, "openvino", "int8", metric=0.947, rps=260, p99_ms=6.1, megabytes=24),
        build_candidate(3, "torch", "fp32", metric=0.943, rps=80, p99_ms=14, megabytes=70),
        build_candidate(3, "openvino", "int8", metric=0.942, rps=480, p99_ms=3.4, megabytes=19),
        build_candidate(2, "onnxruntime", "fp32", metric=0.925, rps=210, p99_ms=7, megabytes=62),
        build_candidate(2, "openvino", "int8", metric=0.928, rps=640, p99_ms=2.6, megabytes=17),
        build_candidate(1, "openvino", "int8", metric=0.88, rps=1100, p99_ms=1.6, megabytes=15),
        build_candidate(
            6, "onnxruntime", "int8_dynamic", metric=0.946, rps=90, p99_ms=13, megabytes=24,
            rejection="0.9% of labels change with the row's neighbours in the batch; 0.1% are allowed",
        ),
    ]  # fmt: skip


LABELS = ["acq", "earn", "ship"]
PREDICTED = {"6torchfp32": 0.0, "3openvinoint8": 0.5}
"""Candidates with predictions, and the share of `ship` that each takes for `earn`."""


def predict(share: float) -> Predictions:
    truth = np.arange(600) % 3
    lost = (truth == 2) & (np.random.default_rng(2).random(600) < share)
    return Predictions.of_rows(truth, np.where(lost, 1, truth))


FRONTIER = ["6openvinoint8", "3openvinoint8", "2openvinoint8", "1openvinoint8", "6torchfp32"]


@pytest.fixture
def make_candidate() -> Callable[..., Candidate]:
    return build_candidate


@pytest.fixture
def make_run(tmp_path: pathlib.Path) -> Callable[..., RunFolder]:
    """A run folder of real records; a record given as None is left out."""

    def make(candidates: list[Candidate] | None = None, **records: dict[str, Any] | None) -> RunFolder:
        run = RunFolder(tmp_path / "run")
        for candidate in fleet() if candidates is None else candidates:
            run.put(candidate.model_dump(mode="json"), "candidates", f"{candidate.recipe_hash}.json")
        defaults: dict[str, dict[str, Any]] = {
            "config": {"name": "reuters-topics", "task": "text_classification", "cost": {"rps": 100}},
            "data": {"rows": {"train": 4936, "validation": 549}, "labels": LABELS, "warnings": []},
            "frontier": {
                "objectives": ["metric", "robustness", "latency_p99_ms", "serving_usd_per_1k"],
                "members": FRONTIER,
                "dominated": ["3torchfp32", "2onnxruntimefp32"],
            },
            "choice": {
                "recipe_hash": "3openvinoint8",
                "reason": "cheapest over 12 months of those that meet the constraints",
                "keep_teacher": False,
                "constraints": {"max_drop": {"bound": 0.01, "value": 0.008, "margin": 0.002}},
                "relaxed": {
                    "max_drop": {
                        "bound": 0.011,
                        "recipe_hash": "2openvinoint8",
                        "label": "2 layers (0,5) int8 openvino",
                        "saves_usd": 120.5,
                        "saves_usd_month": 10.0,
                    }
                },
                "break_even_months": 0.31,
            },
            "test": {"teacher": {"accuracy": 0.951}, "choice": {"accuracy": 0.9433}},
        }
        for name, record in {**defaults, **records}.items():
            if record is not None:
                run.put(record, f"{name}.json")
        for name, share in PREDICTED.items():
            put_predictions(run, name, predict(share))
        return run

    return make
