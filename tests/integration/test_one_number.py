"""One number for one thing: what every place tells of a finished run's dollars, as its reader reads it."""

from __future__ import annotations

import csv
import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from equipoise.costs.ledger import read_ledger
from equipoise.errors import ServiceError
from equipoise.exporter.client import read_samples
from equipoise.ray_runtime import free_port
from equipoise.report.markup import dollars
from equipoise.runs import RunFolder

# The run itself takes about a minute, in the setup of the first test.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

HOURS_A_MONTH = 730
Told = dict[str, dict[str, float]]


@dataclass(frozen=True)
class Finished:
    """A run with a learning curve, whose training is more than the teacher's; and what it printed."""

    folder: Path
    summary: dict[str, Any]

    @property
    def run(self) -> RunFolder:
        return RunFolder(self.folder)


@pytest.fixture(scope="module")
def finished(runs: Any, tiny_run: Callable[..., dict[str, Any]]) -> Finished:
    values = tiny_run(
        search={"trials": 3},
        cost={"learning_curve": True, "retrainings_per_year": 4, "rps": 100_000},
        serving={"port": free_port(), "metrics_port": free_port(), "teacher_rows": 20},
    )
    folder = runs.folder / "run"
    found = runs.call(
        "run", "-f", str(runs.write("run.yaml", values)), "--out", str(folder), "--json", timeout_s=800
    )
    assert found.returncode == 0, found.stderr
    return Finished(folder, json.loads(found.stdout))


def test_every_place_tells_one_number_for_one_thing(finished: Finished, runs: Any) -> None:
    told = told_dollars(runs, finished.folder)
    for thing, places in told.items():
        first, *others = places.values()
        assert first != 0, (thing, places)
        assert others == pytest.approx([first] * len(others), rel=1e-9), (thing, places)
    assert finished.summary["choice"]["total_usd"] == told["$ of the choice's life"]["show"]


def test_the_learning_curve_rises_in_labels(finished: Finished) -> None:
    points = finished.run.read("learning_curve.json")["points"]
    whole = finished.run.read("data.json")["splits"]["train"]["rows"]
    assert [point["rows"] for point in points] == [round(whole / 2 / 2), round(whole / 2), whole]
    assert all(point["core_s"] > 0 and 0 <= point["metric"]["value"] <= 1 for point in points)
    teacher = next(candidate for candidate in finished.run.candidates() if candidate.is_teacher)
    assert points[-1]["metric"]["value"] == pytest.approx(teacher.quality.metric.value, abs=0.02)


def test_a_run_that_does_not_add_up_ends_with_5(finished: Finished, runs: Any) -> None:
    """A doubled line of the search, in a run that is finished; put right again, it ends with 0."""
    lines = [path for path in (finished.folder / "ledger").glob("trial-*/*.jsonl") if path.stat().st_size]
    held = lines[0].read_bytes()
    arguments = ("run", "-f", str(runs.folder / "run.yaml"), "--out", str(finished.folder), "--json")
    try:
        lines[0].write_bytes(held + held)
        found = runs.call(*arguments)
        assert (found.returncode, found.stdout) == (5, "")
        assert "aws/" in found.stderr.splitlines()[-1]
    finally:
        lines[0].write_bytes(held)
    assert runs.call(*arguments).returncode == 0


def test_at_another_rate_too(finished: Finished, runs: Any) -> None:
    """`cost` and `rerank` price every term anew, `choose` the serving alone."""
    location = str(finished.folder)
    costed, chosen, ranked = (
        json.loads(runs.call(command, location, "--rps", "180000", "--json").stdout)
        for command in ("cost", "choose", "rerank")
    )
    for key in ("serving_usd_per_1k", "serving_usd_month", "total_usd"):
        assert chosen["teacher"][key] == pytest.approx(costed["against"]["terms"][key], rel=1e-9)
        assert ranked["old"][key] == pytest.approx(costed["candidate"]["terms"][key], rel=1e-9)


def test_the_report_and_the_summary_bill_the_run_alike(finished: Finished) -> None:
    report = (finished.folder / "report.html").read_text(encoding="utf-8")
    bill = report[report.index("What this run cost") :]
    bill = bill[: bill.index("</section>")]
    for component, usd in finished.summary["ledger_usd_by_component"].items():
        row = bill[bill.index(f">{component}</th>") :]
        assert row[: row.index("</tr>")].endswith(f"<td>{dollars(usd)}</td>"), component
    assert f"<td>{dollars(finished.summary['ledger_usd'])}</td>" in bill
    assert "Estimate against actual" in report


def test_whatever_ran_or_is_kept_is_on_the_ledger_under_one_run(finished: Finished) -> None:
    lines = read_ledger(finished.run)
    assert {line.run_id for line in lines} == {"tiny"}
    kinds = {line.resource_type for line in lines}
    assert kinds == {"node", "worker", "task", "trial", "replica", "artefact", "cache"}


def test_a_finished_run_keeps_nothing_large_that_is_not_on_its_ledger(finished: Finished) -> None:
    stored = {line.resource_id for line in read_ledger(finished.run) if line.unit == "GB-months"}
    large = {
        str(path.relative_to(finished.folder))
        for path in finished.folder.rglob("*")
        if path.is_file() and path.stat().st_size > 100_000 and path.name != "report.html"
    }
    assert large
    assert all(any(name.startswith(f"{kept}/") for kept in stored) for name in large), (large, stored)
    assert not (finished.folder / ".scratch").exists()


def told_dollars(runs: Any, folder: Path) -> Told:
    """Dollars by what they are and by who tells them."""
    location = str(folder)

    def ask(*command: str) -> dict[str, Any]:
        found = runs.call(*command, "--json")
        assert found.returncode == 0, found.stderr
        answer: dict[str, Any] = json.loads(found.stdout)
        return answer

    summary = ask("show", location)
    choice = summary["choice"]
    costed, chosen, ranked = (ask(command, location) for command in ("cost", "choose", "rerank"))
    mine, theirs = costed["candidate"]["terms"], costed["against"]["terms"]
    report = read_report(folder)
    drawn = {candidate["group"]: candidate["values"] for candidate in report["frontier"]["candidates"]}
    bundled = json.loads((folder / "bundle" / "bundle.json").read_bytes())["candidate"]["cost"]
    exported = scrape(runs, location)

    def metric(name: str, **labels: str) -> float:
        values = [
            value for found, held, value in exported if found == name and labels.items() <= held.items()
        ]
        assert values, (name, labels)
        return sum(values)

    told: Told = {
        "serving $/1k of the choice": {
            "show": choice["serving_usd_per_1k"],
            "cost": mine["serving_usd_per_1k"],
            "choose": chosen["choice"]["serving_usd_per_1k"],
            "rerank": ranked["new"]["serving_usd_per_1k"],
            "report": drawn["choice"]["usd_per_1k"][0],
            "bundle": bundled["serving_usd_per_1k"],
            "exporter": metric("equipoise_estimated_usd_per_1k"),
        },
        "serving $/1k of the teacher": {
            "show": choice["teacher_serving_usd_per_1k"],
            "cost": theirs["serving_usd_per_1k"],
            "choose": chosen["teacher"]["serving_usd_per_1k"],
            "report": drawn["teacher"]["usd_per_1k"][0],
        },
        "cost ratio": {
            "show": choice["cost_ratio"],
            "cost": mine["serving_usd_per_1k"] / theirs["serving_usd_per_1k"],
            "choose": chosen["cost_ratio"],
        },
        "$ a month to serve the choice": {
            "show": choice["serving_usd_month"],
            "cost": mine["serving_usd_month"],
            "choose": chosen["choice"]["serving_usd_month"],
            "rerank": ranked["new"]["serving_usd_month"],
            "report": drawn["choice"]["usd_month"][0],
            "exporter": metric("equipoise_planned_usd_per_hour") * HOURS_A_MONTH,
        },
        "$ a month to serve the teacher": {
            "show": choice["teacher_serving_usd_month"],
            "cost": theirs["serving_usd_month"],
            "choose": chosen["teacher"]["serving_usd_month"],
            "report": drawn["teacher"]["usd_month"][0],
        },
        "$/1k of the choice in all": {
            "show": choice["total_usd_per_1k"],
            "cost": mine["total_usd_per_1k"],
            "report": drawn["choice"]["total_usd_per_1k"][0],
            "bundle": bundled["total_usd_per_1k"],
        },
        "$ of the choice's life": {
            "show": choice["total_usd"],
            "cost": mine["total_usd"],
            "choose": chosen["choice"]["total_usd"],
            "rerank": ranked["new"]["total_usd"],
            "report": drawn["choice"]["total_usd"][0],
            "the report's bars": sum(bars(report, choice["recipe_hash"]).values()),
        },
        "$ of the teacher's life": {
            "show": choice["teacher_total_usd"],
            "cost": theirs["total_usd"],
            "choose": chosen["teacher"]["total_usd"],
            "report": drawn["teacher"]["total_usd"][0],
        },
        "$ saved over the horizon": {
            "show": choice["saves_usd"],
            "cost": theirs["total_usd"] - mine["total_usd"],
            "choose": chosen["saves_usd"],
            "report": drawn["teacher"]["total_usd"][0] - drawn["choice"]["total_usd"][0],
        },
        "$ of the run": {
            "show": summary["ledger_usd"],
            "ledger show": ask("ledger", "show", location)["billed_usd"],
            "exporter": metric("equipoise_cost_usd_total"),
            "FOCUS": focus_usd(runs, location),
        },
    }
    terms = {"serving": "compute_serving_usd", "training": "compute_training_usd"}
    terms |= {"search": "compute_search_usd", "storage": "storage_usd", "data": "data_usd"}
    terms |= {"maintenance": "maintenance_usd"}
    drawn_terms = bars(report, choice["recipe_hash"])
    for title, key in terms.items():
        told[f"{title} term of the choice"] = {
            "cost": mine[key],
            "the report's bars": drawn_terms[title],
            "bundle": bundled[key],
        }
    by_component = {group["name"]: group["billed_usd"] for group in ask("ledger", "show", location)["groups"]}
    for component, usd in summary["ledger_usd_by_component"].items():
        told[f"$ of the run's {component}"] = {
            "show": usd,
            "ledger show": by_component[component],
            "exporter": metric("equipoise_cost_usd_total", component=component),
        }
    # The one component that a candidate is charged with as the ledger has it, beside the other.
    told["$ of the run's training"]["cost"] = mine["compute_training_usd"]
    told["$ of the run's search"]["cost"] = mine["compute_search_usd"]
    for key, label in (("ledger_usd_by_class", "basis"), ("ledger_usd_by_term", "term")):
        for name, usd in summary[key].items():
            told[f"$ of the run, {label} {name}"] = {
                "show": usd,
                "exporter": metric("equipoise_cost_usd_total", **{label: name}),
            }
    return told


def read_report(folder: Path) -> dict[str, Any]:
    """What the page of `report.html` is drawn from."""
    text = (folder / "report.html").read_text(encoding="utf-8")
    found = re.search(r'<script type="application/json" id="page-data">(.*?)</script>', text, re.DOTALL)
    assert found
    data: dict[str, Any] = json.loads(found[1])
    return data


def bars(report: dict[str, Any], name: str) -> dict[str, float]:
    """The stacked terms of one candidate by their titles."""
    return {
        trace["name"].removeprefix("compute: "): trace["x"][trace["y"].index(name)]
        for trace in report["figures"]["costs"]["data"]
    }


def focus_usd(runs: Any, location: str) -> float:
    """Sum of a FOCUS export."""
    file = Path(runs.folder) / "told.csv"
    assert runs.call("ledger", "export", location, "--focus", str(file)).returncode == 0
    with file.open(encoding="utf-8", newline="") as rows:
        return sum(float(row["BilledCost"]) for row in csv.DictReader(rows))


def scrape(runs: Any, location: str) -> list[tuple[str, dict[str, str], float]]:
    """One scrape over HTTP of an exporter of its own."""
    port = free_port()
    process = runs.start("exporter", location, "--port", str(port))
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                page = read_samples(f"http://127.0.0.1:{port}/metrics", "equipoise_")
                return [(sample.name, dict(sample.labels), sample.value) for sample in page]
            except ServiceError:
                assert process.poll() is None, process.communicate()
                assert time.monotonic() < deadline
                time.sleep(0.3)
    finally:
        runs.kill(process)
        process.communicate()  # closes its pipes
