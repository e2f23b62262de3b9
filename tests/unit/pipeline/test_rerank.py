from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from equipoise.config.cost import CostConfig
from equipoise.config.search import ConstraintsConfig
from equipoise.costs.price_book import load_prices
from equipoise.errors import ConfigError, RunFolderError
from equipoise.pipeline.pricing import price_again, read_work
from equipoise.pipeline.rerank import rerank
from equipoise.runs import RunFolder
from equipoise.search.selection import explain, select


def ranked(run: RunFolder, **changes: Any) -> dict[str, Any]:
    return rerank(run, changes, switch_hours=4, overlap_hours=1)


def test_unchanged_inputs_change_nothing(priced_run: RunFolder) -> None:
    before = {path.name: path.read_bytes() for path in priced_run.local().rglob("*.json")}
    found = ranked(priced_run)

    assert found["was"] | {"violates": []} == found["old"] == found["new"]
    assert (found["switch"], found["saved_usd_month"], found["switching_usd"]) == (False, 0, 0)
    assert found["pay_back_days"] is None
    assert found["frontier"] == priced_run.read("frontier.json")["members"]
    assert found["ranking"][0] == found["old"]["recipe_hash"]
    assert {path.name: path.read_bytes() for path in priced_run.local().rglob("*.json")} == before
    assert json.loads(json.dumps(found)) == found


@given(
    cost=st.builds(
        CostConfig,
        rps=st.floats(0.1, 1e5),
        profile=st.sampled_from(["constant", "diurnal", "office-hours", "bursts"]),
        horizon_months=st.floats(0.5, 48),
        node=st.sampled_from(["aws/c7i.large", "aws/c7a.xlarge", "gcp/c3-standard-4"]),
        min_replicas=st.integers(1, 3),
        engineer_hours_per_month=st.floats(0, 10),
        retrainings_per_year=st.floats(0, 12),
    ),
    data=st.data(),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
def test_ranking_again_with_what_was_chosen_with_changes_nothing(
    priced_run: RunFolder, cost: CostConfig, data: st.DataObject
) -> None:
    """Whatever a run is priced at: a choice made there stands there, to the last digit."""
    config = priced_run.read("config.json")
    priced_run.put({**config, "cost": cost.model_dump(mode="json")}, "config.json")
    work, book = read_work(priced_run), load_prices(cost)
    candidates = [price_again(candidate, work, cost, book) for candidate in priced_run.candidates()]
    for candidate in candidates:
        priced_run.put(candidate.model_dump(mode="json"), "candidates", f"{candidate.recipe_hash}.json")
    constraints = data.draw(st.sampled_from([0.03, 0.06, 0.2]))
    held = priced_run.read("config.json")
    held["constraints"]["max_drop"] = constraints
    priced_run.put(held, "config.json")
    bound = ConstraintsConfig(max_drop=constraints)
    teacher = next(candidate for candidate in candidates if candidate.is_teacher)
    priced_run.put(explain(select(candidates, bound), teacher, candidates, bound), "choice.json")

    found = ranked(priced_run)
    assert found["new"] == found["old"] == found["was"] | {"violates": []}
    assert found["switch"] is False


def test_a_tighter_objective_moves_the_choice_and_says_what_that_costs(priced_run: RunFolder) -> None:
    """The runner-up takes over where the old choice alone takes longer than the objective."""
    config = priced_run.read("config.json")
    config["constraints"]["max_drop"] = 0.2
    priced_run.put(config, "config.json")
    found = ranked(priced_run, p99_ms=2.5, rps=100.0)

    assert found["old"]["label"] == "2 layers (0,5) int8 openvino"
    assert found["old"]["violates"] == ["p99_ms"]
    assert found["new"]["label"] == "1 layer (0) int8 openvino"
    assert found["switch"]


def test_savings_switching_and_pay_back_by_hand(priced_run: RunFolder) -> None:
    """With the drop no longer bounded, one layer serves 3,000/s on 5 replicas where two layers take 10."""
    config = priced_run.read("config.json")
    config["constraints"]["max_drop"] = 0.2
    priced_run.put(config, "config.json")
    found = ranked(priced_run, rps=3000.0)

    replica_month = 0.08925 / 2 * 730
    assert (found["old"]["replicas"], found["new"]["replicas"]) == (10, 5)
    assert found["saved_usd_month"] == pytest.approx(5 * replica_month)
    assert found["switching_people_usd"] == 4 * 100
    assert found["switching_overlap_usd"] == pytest.approx(5 * 0.08925 / 2)
    paid_back = found["switching_usd"] / found["saved_usd_month"] * 730 / 24
    assert found["pay_back_days"] == pytest.approx(paid_back)
    assert 70 < paid_back < 80


def test_what_was_spent_on_the_search_is_no_reason_to_go_back(priced_run: RunFolder, tmp_path: Path) -> None:
    """At hardly any traffic the teacher is cheaper with the search counted, but it is spent already."""
    own = tmp_path / "new.yaml"
    own.write_text("nodes: {aws/c7i.large: {usd_per_hour: 5.0}}\n")
    found = ranked(priced_run, rps=0.1, prices=str(own))

    assert not found["new"]["label"].startswith("6 layers (0-5) fp32")
    assert found["switch"] is False


def test_new_prices_price_old_and_new(priced_run: RunFolder, tmp_path: Path) -> None:
    own = tmp_path / "new.yaml"
    own.write_text("nodes: {aws/c7i.large: {usd_per_hour: 0.1785}}\n")
    found = ranked(priced_run, prices=str(own))

    assert found["old"]["serving_usd_month"] == pytest.approx(2 * found["was"]["serving_usd_month"])


def test_nothing_feasible_names_what_binds(priced_run: RunFolder) -> None:
    found = ranked(priced_run, p99_ms=0.5)

    assert (found["feasible"], found["new"], found["binding"]) == (False, None, "p99_ms")


def test_a_run_without_a_choice_is_refused(priced_run: RunFolder) -> None:
    priced_run.put({"feasible": False, "reason": "p99_ms binds"}, "choice.json")
    with pytest.raises(RunFolderError, match="no choice to rank against"):
        ranked(priced_run)


def test_a_negative_price_is_one_line(priced_run: RunFolder, tmp_path: Path) -> None:
    own = tmp_path / "new.yaml"
    own.write_text("nodes: {aws/c7i.large: {usd_per_hour: -0.1}}\n")
    with pytest.raises(ConfigError, match=r"usd_per_hour: wrong value \(got -0\.1\)"):
        ranked(priced_run, prices=str(own))
