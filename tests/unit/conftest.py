"""Real records that several packages' tests rank, choose from and sum up."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from equipoise.compression.structure import recipe_hash
from equipoise.config import RunConfig
from equipoise.config.cost import CostConfig
from equipoise.costs.lifecycle import price_candidate
from equipoise.costs.price_book import load_prices
from equipoise.pipeline.pricing import RunWork, price_again
from equipoise.runs import Agreement, Candidate, Figure, Quality, Recipe, RunFolder, Speed
from equipoise.search.frontier import frontier
from equipoise.search.selection import explain, select

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


@pytest.fixture
def priced_run(
    tmp_path: Path, run_config: Callable[..., RunConfig], build_candidate: Callable[..., Candidate]
) -> RunFolder:
    """A run whose choice stands: five candidates, one of them rejected, and the work they took."""
    config = run_config(constraints={"max_drop": 0.03}, cost={"rps": 100})
    run = RunFolder(tmp_path / "run")
    run.claim(config.model_dump(mode="json"))
    work = RunWork(teacher_core_s=4000, searched_core_s=9000, workers=2, labelled_rows=5000)
    run.put(work.model_dump(mode="json"), "work.json")
    candidates = [
        price_again(candidate, work, config.cost, load_prices(config.cost))
        for candidate in (
            build_candidate(rps=20),
            build_candidate(engine="openvino", precision="int8", metric=0.945, rps=90, p99_ms=6),
            build_candidate((0, 5), "openvino", "int8", metric=0.93, rps=400, p99_ms=3),
            build_candidate((0,), "openvino", "int8", metric=0.88, rps=900, p99_ms=2),
            build_candidate((0, 5), "onnxruntime", "int8_dynamic", rps=300, rejection="labels change"),
        )
    ]
    for candidate in candidates:
        run.put(candidate.model_dump(mode="json"), "candidates", f"{candidate.recipe_hash}.json")
    members = [member.recipe_hash for member in frontier(candidates, config.search.objectives)]
    run.put(
        {
            "objectives": list(config.search.objectives),
            "members": members,
            "dominated": [c.recipe_hash for c in candidates if c.eligible and c.recipe_hash not in members],
            "rejected": {c.recipe_hash: c.rejection for c in candidates if not c.eligible},
        },
        "frontier.json",
    )
    choice, teacher = select(candidates, config.constraints), candidates[0]
    run.put(explain(choice, teacher, candidates, config.constraints), "choice.json")
    return run


def _figure(value: float) -> Figure:
    return Figure(value=value, low=value - 0.005, high=value + 0.005, n=500)
