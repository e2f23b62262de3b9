from __future__ import annotations

import html
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from equipoise.config import RunConfig
from equipoise.config.cost import CostConfig
from equipoise.costs.ledger_writer import LedgerWriter
from equipoise.errors import RunFolderError
from equipoise.report.class_figure import class_figure
from equipoise.report.corruption_figure import corruption_figure
from equipoise.report.cost_figure import SHOWN, cost_figure
from equipoise.report.estimate_table import estimate_table
from equipoise.report.frontier_data import frontier_data
from equipoise.report.frontier_report import render_report, write_report
from equipoise.report.groups import read_standing
from equipoise.report.progress_figure import progress_figure
from equipoise.runs import Candidate, RunFolder

MakeRun = Callable[..., RunFolder]
MakeCandidate = Callable[..., Candidate]
VOID = {"meta", "link", "br", "img", "input", "hr"}


class Page(HTMLParser):
    """Visible text, headings, attributes and the balance of a page's tags."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.text = ""
        self.headings: list[str] = []
        self.open: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.scripts: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.attributes += attributes
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("script", "style"):
            self.scripts.append(data)
            return
        self.text += data
        if self.open and self.open[-1] in ("h1", "h2"):
            self.headings.append(data)


def test_a_whole_run_is_one_well_formed_page(make_run: MakeRun) -> None:
    page = Page(render_report(make_run(served={"requests": 1200})))

    assert page.open == []
    assert page.headings == [
        "reuters-topics",
        "Performance against cost",
        "Classes: the choice against the teacher",
        "Robustness by corruption",
        "What a life costs",
        "What a request costs at other traffic",
        "What the search found over its trials",
        "All candidates",
        "Rejected",
        "On test, read once after the choice",
        "Measured while serving",
        "Hardware",
        "Data",
        "Run config",
    ]
    for text in (
        "3 layers (0,2,5) int8 openvino",
        "cheapest over 12 months",
        "0.942 [0.934, 0.950]",
        "0.9% of labels change",
        "Xeon 8488C",
        "teacher.accuracy",
    ):
        assert text in page.text


def test_the_page_is_alone(make_run: MakeRun) -> None:
    text = render_report(make_run())
    page = Page(text)

    assert not [name for name, _ in page.attributes if name in ("src", "href", "action")]
    assert "default-src 'none'" in text
    assert text.count("plotly.js v") == 1
    assert "showSendToCloud: false" in text


def test_every_price_per_request_names_its_arrival_rate(make_run: MakeRun) -> None:
    text = render_report(make_run())
    page = Page(text)

    prices = re.findall(r"\$0\.000\d+(.{12})", page.text)
    assert len(prices) >= 8
    assert all(rest.startswith(" at 100 rps") for rest in prices)
    hovers = [point["hover"] for point in data_of(text)["frontier"]["candidates"]]
    assert all(re.search(r"serving \$[\d.]+ at 100 rps per 1,000", hover) for hover in hovers)


def data_of(text: str) -> dict[str, Any]:
    """What the page's script draws from."""
    found = re.search(r'<script type="application/json" id="page-data">(.*?)</script>', text)
    assert found is not None
    data: dict[str, Any] = json.loads(found[1])
    return data


def test_candidates_of_differing_rates_say_so(make_run: MakeRun, make_candidate: MakeCandidate) -> None:
    busy = CostConfig(rps=900)
    figures = {"metric": 0.9, "rps": 50, "p99_ms": 9, "megabytes": 20}
    candidates = [
        make_candidate(6, "torch", "fp32", **figures),
        make_candidate(3, "openvino", "int8", cost=busy, **figures),
    ]
    run = make_run(candidates)

    page = Page(render_report(run))
    assert "differing arrival rates" in page.text
    assert "at 100 rps" in page.text
    assert "at 900 rps" in page.text
    title = frontier_data(read_standing(run))["quantities"]["usd_per_1k"]["title"]
    assert html.unescape(title) == "serving $ per 1,000 requests at each one's arrival rate"


def test_hostile_texts_stay_texts(make_run: MakeRun, make_candidate: MakeCandidate) -> None:
    attack = "</script><script>alert(1)</script><img src=x onerror=alert(1)>"
    candidate = make_candidate(
        6, "torch", attack, metric=0.9, rps=50, p99_ms=9, megabytes=20, rejection=attack, machine=attack
    )
    candidate = candidate.model_copy(
        update={"quality": candidate.quality.model_copy(update={"metric_name": attack})}
    )
    records = {"name": attack, "task": attack, "more": {attack: attack}}
    candidate = candidate.model_copy(update={"recipe_hash": "hostile"})
    run = make_run(
        [candidate],
        config=records,
        data=records,
        test=records,
        frontier={"objectives": [attack], "members": []},
        choice={"recipe_hash": "hostile", "reason": attack, "constraints": {attack: {"bound": 1}}},
    )
    text = render_report(run)
    page = Page(text)

    assert page.open == []
    assert "<img src=x" not in text
    assert "alert(1)" in page.text
    assert not [script for script in page.scripts if script.strip() == "alert(1)"]
    assert not [name for name, _ in page.attributes if name.startswith("on")]


def test_a_run_without_decisions_still_has_a_report(make_run: MakeRun) -> None:
    run = make_run(frontier=None, choice=None, config=None, data=None, test=None)
    page = Page(render_report(run))

    assert "No choice" in page.text
    assert "Data" not in page.headings
    assert {read_standing(run).group(candidate) for candidate in run.candidates()} == {
        "teacher",
        "dominated",
        "rejected",
    }


@pytest.mark.parametrize(
    "choice",
    [
        {},
        {"recipe_hash": "3openvinoint8"},
        {"recipe_hash": "3openvinoint8", "constraints": {"max_drop": 0.01, "p99_ms": None}},
        {"recipe_hash": "gone", "reason": "no candidate meets the constraints"},
        {"recipe_hash": None, "constraints": []},
    ],
)
def test_a_choice_may_lack_keys(make_run: MakeRun, choice: dict[str, Any]) -> None:
    page = Page(render_report(make_run(choice=choice)))

    assert page.open == []
    assert choice.get("reason", "") in page.text


def test_keeping_the_teacher_is_said_in_words(make_run: MakeRun) -> None:
    choice = {"recipe_hash": "6torchfp32", "keep_teacher": True, "reason": "the teacher is the cheapest"}
    page = Page(render_report(make_run(choice=choice)))

    assert "Keep the teacher" in page.text
    assert "choice (teacher)" in page.text


def test_a_run_without_candidates_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="no finished candidate"):
        render_report(RunFolder(tmp_path))


def test_what_the_run_cost_is_told_as_on_its_ledger(make_run: MakeRun) -> None:
    run = make_run()
    assert "What this run cost" not in Page(render_report(run)).headings
    values = {"name": "a", "data": {"train": "a.csv", "test": "b.csv"}, "model": {"teacher": "sample://x"}}
    clock = iter([0.0, 7200.0, 7200.0, 10800.0]).__next__
    with LedgerWriter(run, RunConfig.model_validate(values), "driver", clock=clock) as ledger:
        with ledger.meter("training", cores=2):
            pass
        with pytest.raises(ZeroDivisionError), ledger.meter("search", cores=1):
            _ = 1 / 0
    page = Page(render_report(run))

    assert "What this run cost" in page.headings
    told = page.text[page.text.index("What this run cost") :]
    # Two hours of a whole aws/c7i.large, and an hour of half of one that was overhead.
    for cell in ("$0.178", "$0.0446", "$0.223"):
        assert cell in told
    assert "$0.223 of compute, as the ledger had it by 1970-01-01 03:00:00 UTC" in told


def test_estimate_and_actual_stand_side_by_side(make_run: MakeRun) -> None:
    def about(value: float) -> dict[str, float]:
        return {"value": value, "low": value * 0.8, "high": value * 1.2}

    estimate = {
        "basis": "earlier runs",
        "seconds": {"teacher": about(100.0)},
        "total_s": about(580.0),
        "training_usd": about(0.002),
    }
    took = {
        "stages": {"teacher": {"actual_s": 125.0}},
        "total": {"actual_s": 609.0},
        "dollars": {"training": {"actual_usd": 0.0021}},
    }
    page = Page(render_report(make_run(estimate=estimate, actual=took)))
    assert "Estimate against actual" in page.headings
    told = page.text[page.text.index("Estimate against actual") :]
    for cell in ("125 s", "+25%", "464 s to 696 s", "609 s", "+5%", "$0.00200", "$0.00210", "earlier runs"):
        assert cell in told
    # A run that is under way has its estimate alone, and one without any has what it took.
    assert "580 s" in estimate_table(estimate, {})
    assert "There was no estimate when the run began." in estimate_table({}, took)
    assert estimate_table({}, {}) == ""


def test_machines_that_differ_are_warned_of(make_run: MakeRun, make_candidate: MakeCandidate) -> None:
    figures = {"metric": 0.9, "rps": 50, "p99_ms": 9, "megabytes": 20}
    candidates = [
        make_candidate(6, "torch", "fp32", machine="one", **figures),
        make_candidate(3, "torch", "fp32", machine="two", **figures),
    ]
    warned = Page(render_report(make_run(candidates))).text

    assert "machines that differ" in warned
    assert "machine one" in warned
    assert "machine two" in warned


def test_one_machine_is_no_warning(make_run: MakeRun) -> None:
    assert "machines that differ" not in render_report(make_run())


def test_the_report_is_put_in_the_run_folder(make_run: MakeRun) -> None:
    run = make_run()
    location = write_report(run)

    assert location == run.path("report.html")
    assert Path(location).read_text(encoding="utf-8") == render_report(run)


def test_the_scatter_tells_the_groups_apart(make_run: MakeRun) -> None:
    data = frontier_data(read_standing(make_run()))
    marks = {group["name"]: group["marker"] for group in data["groups"]}

    assert list(marks) == ["choice", "teacher", "frontier", "dominated", "rejected"]
    assert len({mark["symbol"] for mark in marks.values()}) == 5
    assert len({mark["color"] for mark in marks.values()}) == 5
    groups = [point["group"] for point in data["candidates"]]
    assert {name: groups.count(name) for name in marks} == {
        "choice": 1,
        "teacher": 1,
        "frontier": 3,
        "dominated": 2,
        "rejected": 1,
    }


def test_every_quantity_is_there_with_its_interval(make_run: MakeRun) -> None:
    data = frontier_data(read_standing(make_run()))
    teacher = next(point for point in data["candidates"] if point["group"] == "teacher")
    assert {data["up"], data["across"]} <= data["quantities"].keys() == teacher["values"].keys()
    assert teacher["values"]["metric"] == pytest.approx([0.95, 0.942, 0.958])
    assert teacher["values"]["mb"] == [91, 91, 91]
    assert data["quantities"]["usd_per_1k"]["log"] is True
    assert teacher["facets"] == {"engine": "torch", "precision": "fp32", "structure": "6 layers (0-5)"}


def test_what_was_not_measured_is_no_point(make_run: MakeRun, make_candidate: MakeCandidate) -> None:
    bare = make_candidate(6, "torch", "fp32", metric=0.9, rps=50, p99_ms=9, megabytes=20)
    quality = bare.quality.model_copy(update={"robustness": None, "corruptions": {}})
    run = make_run([bare.model_copy(update={"quality": quality})])
    standing = read_standing(run)
    assert frontier_data(standing)["candidates"][0]["values"]["robustness"] is None
    assert corruption_figure(standing) is None
    assert "Robustness by corruption" not in Page(render_report(run)).headings


def test_progress_rises_to_the_whole_in_the_order_of_measuring(make_run: MakeRun) -> None:
    standing = read_standing(make_run())
    figure = progress_figure(standing)
    assert figure is not None
    shares = figure["data"][0]["y"]
    assert shares == sorted(shares)
    assert shares[-1] == 1
    assert figure["data"][0]["x"] == list(range(1, 9))
    first = min(standing.candidates, key=lambda c: c.measured_at or "")
    assert figure["data"][0]["hovertext"][0].startswith(f"trial 1: {first.recipe.label}")


def test_without_the_order_on_record_no_progress_is_drawn(
    make_run: MakeRun, make_candidate: MakeCandidate
) -> None:
    figures = {"metric": 0.9, "rps": 50, "p99_ms": 9, "megabytes": 20}
    old = make_candidate(6, "torch", "fp32", **figures).model_copy(update={"measured_at": None})
    standing = read_standing(make_run([old]))
    assert progress_figure(standing) is None


def test_classes_that_are_given_up_stand_on_top(make_run: MakeRun) -> None:
    comparison = read_standing(make_run()).comparison
    assert comparison is not None
    assert comparison.classes[0].label == "ship"
    trace = class_figure(comparison)["data"][0]
    assert trace["x"][-1] == comparison.classes[0].f1_difference.value
    assert trace["marker"]["symbol"][-1] == "triangle-left"
    assert trace["marker"]["symbol"][0] == "circle"


def test_without_predictions_there_is_no_word_of_classes(make_run: MakeRun) -> None:
    run = make_run()
    run.local("candidates", "6torchfp32.predictions.npy").unlink()
    assert "Classes: the choice against the teacher" not in Page(render_report(run)).headings


def test_the_worst_corruption_stands_on_top(make_run: MakeRun) -> None:
    figure = corruption_figure(read_standing(make_run()))
    assert figure is not None
    teacher, choice = figure["data"]
    assert (teacher["name"], choice["name"]) == ("teacher", "choice")
    assert choice["y"] == ["typos 10%", "typos 20%"]
    assert choice["x"] == sorted(choice["x"], reverse=True)
    assert [shape["x0"] for shape in figure["layout"]["shapes"]] == [0.95, 0.942]


def test_what_widening_a_constraint_saves_is_told(make_run: MakeRun) -> None:
    text = Page(render_report(make_run())).text
    assert "saves $120.50: 2 layers (0,5) int8 openvino" in text
    assert "after 0.3 months" in text


def test_the_test_split_is_a_table_of_two_columns(make_run: MakeRun) -> None:
    figure = {"value": 0.95, "low": 0.94, "high": 0.96, "n": 2000}
    side = {"metric_name": "accuracy", "metric": figure, "macro_f1": figure, "temperature": 1.0}
    drop = {"value": 0.004, "low": -0.001, "high": 0.009, "n": 2000}
    run = make_run(test={"teacher": side, "choice": side, "drop": drop, "rows": 2000})
    text = Page(render_report(run)).text
    assert "2,000 test rows; 95% intervals." in text
    assert "+0.0040 [-0.0010, +0.0090]" in text
    assert "teacher.metric" not in text


def test_the_bars_add_up_to_the_total(make_run: MakeRun) -> None:
    standing = read_standing(make_run())
    figure = cost_figure(standing)
    traces = figure["data"]
    totals = {candidate.recipe_hash: candidate.cost.total_usd for candidate in standing.candidates}

    assert (len(traces), figure["layout"]["barmode"]) == (6, "stack")
    for position, name in enumerate(traces[0]["y"]):
        assert sum(trace["x"][position] for trace in traces) == pytest.approx(totals[name])


def test_of_many_candidates_the_cheapest_are_drawn_beside_choice_and_teacher(make_run: MakeRun) -> None:
    run = make_run()
    dear = next(candidate for candidate in run.candidates() if candidate.recipe_hash == "3torchfp32")
    for number in range(60):
        cost = dear.cost.model_copy(update={"storage_usd": 1000.0 + number})
        other = dear.model_copy(update={"recipe_hash": f"other{number}", "cost": cost})
        run.put(other.model_dump(mode="json"), "candidates", f"other{number}.json")
    bars = cost_figure(read_standing(run))["data"][0]["y"]
    assert len(bars) <= SHOWN + 2
    assert {"6torchfp32", "3openvinoint8"} <= set(bars)
