from __future__ import annotations

import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from equipoise.config.cost import CostConfig
from equipoise.errors import RunFolderError
from equipoise.report.cost_figure import cost_figure
from equipoise.report.frontier_figure import frontier_figure
from equipoise.report.frontier_report import render_report, write_report
from equipoise.report.groups import read_standing
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
        "What a life costs",
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
    html = render_report(make_run())
    page = Page(html)

    assert not [name for name, _ in page.attributes if name in ("src", "href", "action")]
    assert "default-src 'none'" in html
    assert html.count("plotly.js v") == 1
    assert html.count("Plotly.newPlot(") == 2
    assert '"showSendToCloud": false' in html


def test_every_price_per_request_stands_beside_its_arrival_rate(make_run: MakeRun) -> None:
    page = Page(render_report(make_run()))

    assert page.text.count("at 100 rps") >= 2 * 8
    prices = re.findall(r"\$0\.000\d+(.{12})", page.text)
    assert prices
    assert all(rest == " at 100 rps" or rest.startswith(" at 100 rps") for rest in prices)


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
    title = frontier_figure(read_standing(run))["layout"]["xaxis"]["title"]["text"]
    assert title == "serving $ per 1,000 requests at each one's arrival rate"


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
    html = render_report(run)
    page = Page(html)

    assert page.open == []
    assert "<img" not in html
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
    figure = frontier_figure(read_standing(make_run()))
    traces = {trace["name"]: trace for trace in figure["data"]}

    assert list(traces) == ["choice", "teacher", "frontier", "dominated", "rejected"]
    assert len({trace["marker"]["symbol"] for trace in traces.values()}) == 5
    assert len({trace["marker"]["color"] for trace in traces.values()}) == 5
    assert {name: len(trace["x"]) for name, trace in traces.items()} == {
        "choice": 1,
        "teacher": 1,
        "frontier": 3,
        "dominated": 2,
        "rejected": 1,
    }
    assert figure["layout"]["xaxis"]["type"] == "log"
    assert traces["teacher"]["error_y"]["array"] == pytest.approx([0.008])


def test_menus_redraw_every_trace(make_run: MakeRun) -> None:
    figure = frontier_figure(read_standing(make_run()))
    sizes = [len(trace["x"]) for trace in figure["data"]]
    titles = []
    for letter, menu in zip("yx", figure["layout"]["updatemenus"], strict=True):
        for button in menu["buttons"]:
            restyle, relayout = button["args"]
            assert [len(values) for values in restyle[letter]] == sizes
            assert [len(bars["array"]) for bars in restyle[f"error_{letter}"]] == sizes
            titles.append(relayout[f"{letter}axis.title.text"])

    for quantity in ("accuracy", "robustness", "p99", "throughput", "size", "serving $"):
        assert any(quantity in title for title in titles)


def test_the_bars_add_up_to_the_total(make_run: MakeRun) -> None:
    standing = read_standing(make_run())
    traces = cost_figure(standing)["data"]
    totals = {candidate.recipe_hash: candidate.cost.total_usd for candidate in standing.candidates}

    assert len(traces) == 6
    for position, name in enumerate(traces[0]["y"]):
        assert sum(trace["x"][position] for trace in traces) == pytest.approx(totals[name])
