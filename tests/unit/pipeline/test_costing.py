from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from equipoise import storage
from equipoise.config.cost import CostConfig
from equipoise.costs.capacity import flat_capacity
from equipoise.costs.price_book import load_prices, replica_usd_per_hour
from equipoise.errors import ConfigError, DataError, InputError, RunFolderError
from equipoise.exporter.serving_price import read_serving_price
from equipoise.pipeline.costing import cost_of
from equipoise.pipeline.decision import decide
from equipoise.pipeline.pricing import read_work
from equipoise.pipeline.summary import summarize
from equipoise.report.frontier_report import render_report
from equipoise.report.markup import per_1k
from equipoise.runs import Candidate, RunFolder


def test_unchanged_traffic_gives_the_terms_on_record(priced_run: RunFolder) -> None:
    found = cost_of(priced_run.location, None, None, {})
    stored = {candidate.recipe_hash: candidate for candidate in priced_run.candidates()}
    for side in ("candidate", "against"):
        terms = stored[found[side]["recipe_hash"]].cost.model_dump(mode="json")
        assert {key: found[side]["terms"][key] for key in terms} == terms
    assert found["against"]["is_teacher"]
    assert json.loads(json.dumps(found)) == found


def test_one_number_for_one_thing(priced_run: RunFolder) -> None:
    """`show`, `choose`, `cost` and the report tell the same dollars of the choice and of the teacher."""
    shown = summarize(priced_run)["choice"]
    costed = cost_of(priced_run.location, None, None, {})
    chosen = decide(priced_run, {})
    mine, theirs = costed["candidate"]["terms"], costed["against"]["terms"]

    assert shown["serving_usd_per_1k"] == mine["serving_usd_per_1k"]
    assert shown["serving_usd_per_1k"] == chosen["choice"]["serving_usd_per_1k"]
    assert shown["teacher_serving_usd_per_1k"] == theirs["serving_usd_per_1k"]
    assert shown["total_usd_per_1k"] == mine["total_usd_per_1k"]
    assert shown["replicas"] == mine["replicas"] == chosen["choice"]["replicas"]
    assert shown["cost_ratio"] == mine["serving_usd_per_1k"] / theirs["serving_usd_per_1k"]
    report = render_report(priced_run)
    for usd in (mine["serving_usd_per_1k"], theirs["serving_usd_per_1k"]):
        assert per_1k(usd, 100) in report
    [point] = [point for point in costed["load_curve"] if point["rps"] == 100]
    assert point["serving_usd_per_1k"] == pytest.approx(mine["serving_usd_per_1k"])
    assert point["total_usd_per_1k"] == pytest.approx(mine["total_usd_per_1k"])


def test_the_exporter_prices_the_measured_throughput_like_everybody_else(priced_run: RunFolder) -> None:
    """Replicas that were metered as busy as they were measured cost what the search said."""
    price = read_serving_price(priced_run.location)
    for side in ("candidate", "against"):
        found = cost_of(priced_run.location, None, None, {})[side]
        [candidate] = [c for c in priced_run.candidates() if c.recipe_hash == found["recipe_hash"]]
        metered = price.usd_per_1k(1000 / candidate.speed.throughput_rps.value, 1000)
        assert metered == pytest.approx(found["terms"]["serving_usd_per_1k"])


def test_traffic_given_counts_and_the_rest_is_the_runs(priced_run: RunFolder) -> None:
    found = cost_of(
        priced_run.location, None, None, {"rps": 500.0, "profile": "office-hours", "horizon_months": 6.0}
    )
    terms = found["candidate"]["terms"]
    usd_per_hour = replica_usd_per_hour(load_prices(CostConfig()), CostConfig())

    # 80% of 400 requests a second are planned with; 1,591 come in office hours, 159 otherwise.
    assert terms["replicas"] == flat_capacity(320).replicas(np.array([1590.9]))[0] == 5
    assert terms["compute_serving_usd"] == pytest.approx((40 * 5 + 128 * 1) / 168 * usd_per_hour * 730 * 6)


def test_another_node_serves_but_did_not_train(priced_run: RunFolder) -> None:
    here = cost_of(priced_run.location, None, None, {})["candidate"]["terms"]
    there = cost_of(priced_run.location, None, None, {"node": "aws/g5.xlarge"})["candidate"]["terms"]

    assert there["compute_serving_usd"] > here["compute_serving_usd"]
    assert there["compute_training_usd"] == here["compute_training_usd"]
    assert there["compute_search_usd"] == here["compute_search_usd"]


def test_any_candidate_against_any_other(priced_run: RunFolder) -> None:
    by_label = {candidate.recipe.label: candidate.recipe_hash for candidate in priced_run.candidates()}
    one_layer = by_label["1 layer (0) int8 openvino"]
    found = cost_of(priced_run.location, one_layer[:6], "choice", {})

    assert found["candidate"]["recipe_hash"] == one_layer
    assert found["against"]["label"] == "2 layers (0,5) int8 openvino"
    same = cost_of(priced_run.location, "teacher", None, {})
    assert same["candidate"]["is_teacher"]
    assert same["against"] is same["break_even"] is None


def test_the_break_even_is_a_number_and_a_sentence(priced_run: RunFolder) -> None:
    """At 20 x 0.8 requests a second the teacher needs a second replica: above that it costs more than
    the student, whose search cost a few cents."""
    found = cost_of(priced_run.location, None, None, {})["break_even"]

    assert found["rps"] == pytest.approx(16)
    assert found["sentence"].startswith(
        "above 16 requests/s 2 layers (0,5) int8 openvino on aws/c7i.large is cheaper than the teacher"
    )


def test_a_csv_of_arrivals_brings_its_rate(priced_run: RunFolder, tmp_path: Path) -> None:
    file = tmp_path / "arrivals.csv"
    file.write_text("time,requests\n" + "".join(f"{60 * m},{600 if m < 60 else 60}\n" for m in range(121)))
    found = cost_of(priced_run.location, None, None, {"profile": str(file)})

    assert found["traffic"]["rps"] == found["traffic"]["measured_rps"] == pytest.approx(5.5)
    given = cost_of(priced_run.location, None, None, {"profile": str(file), "rps": 7.0})
    assert given["traffic"]["rps"] == 7


def test_an_objective_that_cannot_be_kept_is_said(priced_run: RunFolder) -> None:
    found = cost_of(priced_run.location, "teacher", None, {"p99_ms": 5.0})["candidate"]

    assert found["keeps_p99"] is False
    assert found["terms"]["p99_ms"] is None


def test_a_bundle_is_priced_from_its_run(priced_run: RunFolder) -> None:
    teacher = next(candidate for candidate in priced_run.candidates() if candidate.is_teacher)
    priced_run.put({"candidate": {"recipe_hash": teacher.recipe_hash}}, "bundle", "bundle.json")

    assert cost_of(priced_run.path("bundle"), None, None, {})["candidate"]["is_teacher"]


def test_a_bundle_away_from_its_run_is_refused(tmp_path: Path) -> None:
    storage.put_json(str(tmp_path / "away" / "bundle.json"), {})
    with pytest.raises(RunFolderError, match="is a bundle away from its run"):
        cost_of(str(tmp_path / "away"), None, None, {})


def test_work_is_added_up_where_no_choice_was_made_yet(
    tmp_path: Path, build_candidate: Callable[..., Candidate]
) -> None:
    run = RunFolder(tmp_path / "run")
    run.put({"seconds": 10.0, "workers": 2}, "teacher", "trained.json")
    run.put({"splits": {"train": {"rows": 90}, "validation": {"rows": 10}}}, "data.json")

    work = read_work(run)
    assert (work.teacher_core_s, work.searched_core_s, work.labelled_rows) == (20, 0, 100)


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"rps": -1.0}, ConfigError, r"cost: rps: wrong value \(got -1\.0\)"),
        ({"horizon_months": 0.0}, ConfigError, r"cost: horizon_months: wrong value"),
        ({"node": "aws/none"}, ConfigError, r"node is not in the price book \(got 'aws/none'\)"),
        ({"profile": "weekly"}, ConfigError, r"no such traffic profile"),
        ({"profile": __file__}, DataError, r"has no column `time`"),
        ({"prices": "none.yaml"}, ConfigError, r"no such price book"),
    ],
)
def test_wrong_traffic_is_one_line(
    priced_run: RunFolder, changes: dict[str, object], kind: type[InputError], message: str
) -> None:
    with pytest.raises(kind, match=message) as caught:
        cost_of(priced_run.location, None, None, changes)
    assert "\n" not in str(caught.value)


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match=r"no config\.json"):
        cost_of(str(tmp_path), None, None, {})


def test_what_labels_buy_is_told_where_a_curve_was_measured(priced_run: RunFolder) -> None:
    assert cost_of(priced_run.location, None, None, {})["labels_buy"] is None
    figure = {"value": 0.9, "low": 0.88, "high": 0.92, "n": 100}
    curve = [
        {"rows": 1000, "metric": figure, "core_s": 1000.0},
        {"rows": 2000, "metric": {**figure, "value": 0.93}, "core_s": 1800.0},
    ]
    priced_run.put({"points": curve}, "learning_curve.json")
    [step] = cost_of(priced_run.location, None, None, {})["labels_buy"]

    # Labels cost 10 cents, a core-second of an aws/c7i.large 0.08925 / 2 / 3600 dollars.
    assert step["points_per_label_usd"] == pytest.approx(3 / 100)
    assert step["points_per_compute_usd"] == pytest.approx(3 / (800 * 0.08925 / 7200))
