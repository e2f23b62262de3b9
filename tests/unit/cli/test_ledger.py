from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from equipoise.cli.main import app
from equipoise.config import RunConfig, validate_config
from equipoise.costs.ledger import read_ledger
from equipoise.costs.ledger_bill import read_bill
from equipoise.costs.ledger_writer import LedgerWriter
from equipoise.errors import ConfigError, ReconcileError, RunFolderError
from equipoise.exporter.client import read_metric
from equipoise.exporter.server import start_exporter
from equipoise.pipeline.metered_node import metered_node
from equipoise.pipeline.summary import summarize
from equipoise.runs import RunFolder


@pytest.fixture
def config() -> RunConfig:
    values = {"name": "tiny", "data": {"train": "a.csv", "test": "b.csv"}, "model": {"teacher": "sample://x"}}
    return validate_config(RunConfig, values, where="test")


@pytest.fixture
def metered(tmp_path: Path, config: RunConfig) -> RunFolder:
    """A run folder in which a node was up and one block ran on it."""
    run = RunFolder(tmp_path / "run")
    (tmp_path / "run" / "models" / "abc").mkdir(parents=True)
    (tmp_path / "run" / "models" / "abc" / "model.onnx").write_bytes(b"x" * 1000)
    with (
        metered_node(run, config, "aws/c7i.large", "pipeline"),
        LedgerWriter(run, config, "driver") as ledger,
        ledger.meter("search", cores=1, detail="judge"),
    ):
        pass
    return run


def call(*arguments: str) -> str:
    found = CliRunner().invoke(app, ["ledger", *arguments], catch_exceptions=False)
    assert found.exit_code == 0, found.output
    return found.stdout


def test_show_sums_by_a_column(metered: RunFolder) -> None:
    found = json.loads(call("show", metered.location, "--json"))

    groups = {group["name"]: group for group in found["groups"]}
    assert groups.keys() == {"search", "pipeline", "storage"}
    assert groups["storage"]["unit"] == "GB-months"
    assert found["billed_usd"] == pytest.approx(sum(group["billed_usd"] for group in groups.values()))
    assert found["faults"] == []
    text = call("show", metered.location, "--by", "charge_class")
    assert "idle" in text
    assert "workload" in text


def test_ledger_summary_export_and_exporter_tell_one_sum(
    metered: RunFolder, tmp_path: Path, config: RunConfig
) -> None:
    metered.put(config.model_dump(mode="json"), "config.json")
    shown = json.loads(call("show", metered.location, "--json"))["billed_usd"]
    export = str(tmp_path / "bill.csv")
    call("export", metered.location, "--focus", export)
    exporter = start_exporter(metered.location, ray_metrics_url=None, port=0)
    try:
        scraped = read_metric(exporter.url, "equipoise_cost_usd_total")
    finally:
        exporter.stop()

    assert shown > 0
    assert summarize(metered)["ledger_usd"] == pytest.approx(shown, rel=1e-9)
    assert scraped == pytest.approx(shown, rel=1e-9)
    assert sum(row.usd for row in read_bill(export)) == pytest.approx(shown, rel=1e-9)
    # What the nodes cost, and the storage, is all that there is.
    nodes = sum(line.billed_cost_usd for line in read_ledger(metered) if line.kind == "node")
    stored = sum(line.billed_cost_usd for line in read_ledger(metered) if line.component == "storage")
    assert nodes + stored == pytest.approx(shown, rel=1e-6)


def test_show_prints_the_lines_themselves(metered: RunFolder) -> None:
    lines = [json.loads(text) for text in call("show", metered.location, "--lines").splitlines()]

    assert sorted((line["kind"], line["charge_class"]) for line in lines if line["unit"] != "GB-months")[
        0
    ] == (
        "node",
        "workload",
    )
    assert "judge" in {line["detail"] for line in lines}


def test_reconcile_says_that_it_adds_up(metered: RunFolder) -> None:
    assert "reconcile within 0.10%" in call("reconcile", metered.location)
    found = json.loads(call("reconcile", metered.location, "--json", "--by", "day"))
    assert found["reconciles"]
    assert {period["resource"] for period in found["periods"]} == {"aws/c7i.large"}


def test_a_lost_line_ends_with_5_and_prints_what_it_knows(metered: RunFolder) -> None:
    next(Path(metered.location, "ledger").glob("driver-*/000000.jsonl")).unlink()

    with pytest.raises(ReconcileError, match=r"aws/c7i\.large from .*% off") as caught:
        CliRunner().invoke(app, ["ledger", "reconcile", metered.location], catch_exceptions=False)
    assert caught.value.exit_status == 5


@pytest.mark.parametrize("name", ["bill.csv", "bill.parquet"])
def test_an_export_is_a_bill_that_agrees(metered: RunFolder, tmp_path: Path, name: str) -> None:
    bill = str(tmp_path / name)
    assert "rows in" in call("export", metered.location, "--focus", bill)
    assert "OFF" not in call("reconcile", metered.location, "--bill", bill)
    found = json.loads(call("reconcile", metered.location, "--bill", bill, "--tag", "run=tiny", "--json"))
    assert found["reconciles"]
    assert {check["resource"] for check in found["checks"]} == {"aws/c7i.large", "aws/s3-standard"}


def test_a_bill_that_differs_ends_with_5(metered: RunFolder, tmp_path: Path) -> None:
    bill = str(tmp_path / "bill.csv")
    call("export", metered.location, "--focus", bill)
    next(Path(metered.location, "ledger").glob("driver-*/000000.jsonl")).unlink()
    with pytest.raises(ReconcileError, match="the bill says") as caught:
        CliRunner().invoke(
            app, ["ledger", "reconcile", metered.location, "--bill", bill], catch_exceptions=False
        )
    assert caught.value.exit_status == 5


def test_bad_input_is_named(metered: RunFolder, tmp_path: Path) -> None:
    runner = CliRunner()
    with pytest.raises(ConfigError, match=r"--from: is no ISO 8601 time \(got 'yesterday'\)"):
        runner.invoke(
            app, ["ledger", "reconcile", metered.location, "--from", "yesterday"], catch_exceptions=False
        )
    for option in (["--from", "2026-01-01"], ["--to", "2026-01-01"], ["--by", "day"]):
        with pytest.raises(ConfigError, match="over its own charge periods"):
            runner.invoke(
                app,
                ["ledger", "reconcile", metered.location, "--bill", "bill.csv", *option],
                catch_exceptions=False,
            )
    with pytest.raises(RunFolderError, match="holds no ledger"):
        runner.invoke(app, ["ledger", "show", str(tmp_path / "none")], catch_exceptions=False)
