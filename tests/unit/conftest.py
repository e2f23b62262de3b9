"""Real records that several packages' tests rank, choose from and sum up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from equipoise.compression.structure import recipe_hash
from equipoise.config.cost import CostConfig
from equipoise.costs.lifecycle import price_candidate
from equipoise.costs.price_book import load_prices
from equipoise.runs import Agreement, Candidate, Figure, Quality, Recipe, Speed

COST = CostConfig(rps=100)


@pytest.fixture(scope="session")
def build_candidate() -> Callable[..., Candidate]:
    """`build_candidate(layers=(0, 5), precision="int8", ...)`: a candidate of a six-layer teacher."""
    book = load_prices(COST)

    def build(
        layers: tuple[int, ...] = (0, 1, 2, 3, 4, 5),
        engine: str = "torch",
        precision: str = "fp32",
        *,
        metric: float = 0.95,
        drop: float | None = None,
        robustness: float | None = 0.9,
        rps: float = 45.0,
        p99_ms: float = 20.0,
        megabytes: float = 90.0,
        rejection: str | None = None,
        **changes: Any,
    ) -> Candidate:
        recipe = Recipe(
            depth=len(layers), layers=layers, distilled=len(layers) < 6, engine=engine, precision=precision
        )
        is_teacher = not recipe.distilled and (engine, precision) == ("torch", "fp32")
        built = Candidate(
            recipe_hash=recipe_hash(recipe),
            recipe=recipe,
            is_teacher=is_teacher,
            eligible=rejection is None,
            rejection=rejection,
            quality=Quality(
                metric_name="accuracy",
                metric=_figure(metric),
                macro_f1=_figure(metric - 0.01),
                robustness=None if robustness is None else _figure(robustness),
                calibration_error=_figure(0.02),
            ),
            speed=Speed(
                latency_p50_ms=_figure(p99_ms * 0.8),
                latency_p99_ms=_figure(p99_ms),
                throughput_rps=_figure(rps),
                batch_size=32,
                threads=1,
            ),
            agreement=Agreement(
                max_logit_difference=0,
                changed_labels=0,
                neighbour_changes=0,
                max_neighbour_difference=0.0,
                rows=500,
            ),
            cost=price_candidate(
                cost=COST,
                book=book,
                throughput_rps=rps,
                stored_bytes=int(megabytes * 1e6),
                training_core_seconds=4000,
                search_core_seconds=0 if is_teacher else 9000,
                labelled_rows=5000,
            ),
            bytes=int(megabytes * 1e6),
            parameters=22_700_000,
            metric_drop=_figure(0.95 - metric if drop is None else drop),
            hardware={"cores": 2},
            seed=13,
            revision="0.1.0",
            seconds={"train": 60.0},
        )
        return built.model_copy(update=changes)

    return build


def _figure(value: float) -> Figure:
    return Figure(value=value, low=value - 0.005, high=value + 0.005, n=500)
