from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest

from equipoise.report.frontier_report import render_report
from equipoise.report.groups import read_standing
from equipoise.report.load_figure import CURVES, break_evens, load_figure
from equipoise.runs import RunFolder

MakeRun = Callable[..., RunFolder]


def test_the_curves_go_through_the_prices_at_the_declared_rate(make_run: MakeRun) -> None:
    standing = read_standing(make_run())
    figure = load_figure(standing, {"cost": {"rps": 100}})
    assert figure is not None
    chosen, teacher = standing.chosen, standing.teacher
    assert chosen is not None
    assert teacher is not None
    for trace, candidate in zip(figure["data"], (chosen, teacher), strict=False):
        assert candidate.recipe.label in trace["name"]
        # Between two drawn rates $/1k falls, or takes a step up where a further replica is needed.
        found = np.interp(100, trace["x"], trace["y"])
        assert found == pytest.approx(candidate.cost.serving_usd_per_1k, rel=0.1)
        assert trace["y"][0] > trace["y"][-1]
    assert 2 <= len(figure["data"]) <= CURVES + 2
    assert figure["layout"]["shapes"][0]["x0"] == 100


def test_prices_that_are_not_here_draw_nothing(make_run: MakeRun) -> None:
    standing = read_standing(make_run())
    assert load_figure(standing, {"cost": {"prices": "gone.yaml"}}) is None
    assert load_figure(standing, {"cost": {"profile": "gone.csv"}}) is None
    assert load_figure(standing, {"cost": {"rps": -1}}) is None


def test_break_evens_are_where_the_total_dollars_cross(make_run: MakeRun) -> None:
    standing = read_standing(make_run())
    teacher = standing.teacher
    assert teacher is not None
    sentences = break_evens(standing, {"cost": {"rps": 100}})
    assert sentences
    assert all(f"than the teacher ({teacher.recipe.label})" in sentence for sentence in sentences)
    # The choice was priced as cheaper than the teacher at the declared rate.
    first = sentences[0]
    assert standing.chosen is not None
    assert standing.chosen.recipe.label in first
    found = re.match(r"above ([\d,.]+) requests/s|at every rate", first)
    assert found, first
    assert float((found[1] or "0").replace(",", "")) < 100
    assert break_evens(standing, {"cost": {"prices": "gone.yaml"}}) == []


def test_the_report_has_it(make_run: MakeRun) -> None:
    run = make_run()
    assert 'id="figure-load"' in render_report(run)
    assert "is cheaper than the teacher" in render_report(run)
    run.put({"total": {"actual_s": 200.0, "estimated_s": 160.0}, "error": 0.25}, "actual.json")
    assert "Estimate against actual" in render_report(run)
