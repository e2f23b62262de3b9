from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from equipoise.config import RunConfig
from equipoise.config.cost import CostConfig
from equipoise.config.search import ConstraintsConfig
from equipoise.costs.price_book import load_prices
from equipoise.errors import ConfigError, RunFolderError
from equipoise.pipeline.decision import _answer, _at_rate, decide
from equipoise.pipeline.pricing import binding_constraints
from equipoise.runs import Candidate, RunFolder


@pytest.fixture
def run(
    tmp_path: Path, run_config: Callable[..., RunConfig], build_candidate: Callable[..., Candidate]
) -> RunFolder:
    """A run whose config allows a drop of 3 points, with three candidates."""
    folder = RunFolder(tmp_path / "run")
    folder.claim(run_config(constraints={"max_drop": 0.03}).model_dump(mode="json"))
    for candidate in (
        build_candidate(rps=20),
        build_candidate(engine="openvino", precision="int8", metric=0.945, rps=90, p99_ms=6),
        build_candidate((0, 5), "openvino", "int8", metric=0.93, rps=400, p99_ms=3),
    ):
        folder.put(candidate.model_dump(mode="json"), "candidates", f"{candidate.recipe_hash}.json")
    return folder


def label(run: RunFolder, rps: float | None = None, **changes: float | None) -> str:
    return str(decide(run, dict(changes), rps)["label"])


def test_constraints_not_given_are_the_runs_own(run: RunFolder) -> None:
    assert label(run) == "2 layers (0,5) int8 openvino"
    assert label(run, max_drop=0.01) == "6 layers (0-5) int8 openvino"
    assert decide(run, {})["constraints"].keys() == {"max_drop"}
    assert decide(run, {"max_drop": None, "p99_ms": 7.0})["constraints"].keys() == {"p99_ms"}


def test_the_objective_under_load_binds_the_choice_like_the_run(run: RunFolder) -> None:
    config = run.read("config.json")
    run.put({**config, "cost": {**config["cost"], "p99_ms": 2.0}}, "config.json")
    found = decide(run, {})
    assert (found["feasible"], found["binding"]) == (False, "p99_ms")


def test_nothing_is_written(run: RunFolder) -> None:
    decide(run, {"max_drop": 0.01}, 50)
    files = {path.name for path in run.local().iterdir()}
    assert files == {"config.json", "candidates"}


def test_another_rate_prices_every_candidate_anew(run: RunFolder) -> None:
    at_50, at_5000 = decide(run, {}, 50), decide(run, {}, 5000)
    assert (at_50["rps"], at_5000["rps"]) == (50, 5000)
    # 80% of 400 requests a second are planned with: 1 and 16 replicas; the teacher's 20 give 4 and 313.
    assert (at_50["choice"]["replicas"], at_5000["choice"]["replicas"]) == (1, 16)
    assert (at_50["teacher"]["replicas"], at_5000["teacher"]["replicas"]) == (4, 313)
    assert at_5000["cost_ratio"] == pytest.approx(16 / 313)


def test_at_a_trickle_the_teacher_is_kept(run: RunFolder) -> None:
    # One replica of any of them is enough: no student earns what the search cost.
    kept = decide(run, {"max_drop": None}, 0.1)
    assert kept["keep_teacher"] is True
    assert kept["label"] == "6 layers (0-5) fp32 torch"
    assert decide(run, {"max_drop": None}, 5000)["keep_teacher"] is False


def test_where_nothing_fits_the_record_says_so(run: RunFolder) -> None:
    found = decide(run, {"p99_ms": 1.0})
    assert found["feasible"] is False
    assert found["binding"] == "p99_ms"
    assert found["nearest"]["label"] == "2 layers (0,5) int8 openvino"
    assert found["enough_alone"] == {"p99_ms": 3}


def test_wrong_bounds_rates_and_folders_are_refused(run: RunFolder, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"constraints: p99_ms"):
        decide(run, {"p99_ms": -1.0})
    with pytest.raises(ConfigError, match=r"cost: rps"):
        decide(run, {}, -5)
    with pytest.raises(RunFolderError, match=r"no config\.json"):
        decide(RunFolder(tmp_path), {})
    empty = RunFolder(tmp_path / "empty")
    empty.put(run.read("config.json"), "config.json")
    with pytest.raises(RunFolderError, match="no finished candidate"):
        decide(empty, {})


@pytest.mark.parametrize("changes", [{}, {"max_usd_month": 900.0}, {"max_usd_month": 60.0}, {"p99_ms": 1.0}])
@pytest.mark.parametrize("rps", [20.0, 2000.0])
def test_under_a_latency_objective_the_answer_is_as_if_every_candidate_were_replayed(
    run: RunFolder, build_candidate: Callable[..., Candidate], changes: dict[str, float], rps: float
) -> None:
    for layers in ((0,), (0, 1), (0, 2), (0, 3)):
        near = build_candidate(layers, "torch", "bf16", metric=0.94, rps=380 + 5 * layers[-1], p99_ms=3)
        run.put(near.model_dump(mode="json"), "candidates", f"{near.recipe_hash}.json")
    config = run.read("config.json")
    config["cost"]["p99_ms"] = 8.0
    run.put(config, "config.json")
    found = decide(run, dict(changes), rps)

    cost = CostConfig.model_validate({**config["cost"], "rps": rps})
    priced = [_at_rate(candidate, cost, load_prices(cost), objective=True) for candidate in run.candidates()]
    held = ConstraintsConfig.model_validate({**config["constraints"], **changes})
    wanted = _answer(priced, binding_constraints(held, cost))
    assert found == {"run": run.location, **wanted}
    assert found["teacher"]["replicas"] > 0
