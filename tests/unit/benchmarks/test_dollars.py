from __future__ import annotations

from pathlib import Path

import pytest
from benchmarks import dollars

from equipoise.costs.ledger import read_ledger
from equipoise.costs.ledger_reconcile import reconcile
from equipoise.costs.ledger_writer import LedgerWriter
from equipoise.runs import RunFolder


def test_what_is_made_is_a_ledger_that_reconciles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dollars, "LINES", 200)
    monkeypatch.setattr(dollars, "REPLICAS", 10)
    run = RunFolder(tmp_path / "run")
    lines = dollars.write_million(run)
    found = reconcile(run)

    # 20 beats of ten replicas, one more of the nodes, and stretches that are idle.
    assert lines == found.lines > 221
    assert found.reconciles
    assert sum(period.busy_hours for period in found.periods) == pytest.approx(10 * 20 * 20 / 2 / 3600)


def test_heartbeats_apart_are_objects_in_order(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    writer = LedgerWriter(run, dollars.config(), "replica")
    for beat in range(3):
        dollars.put_beats(run, writer, writer.name, range(beat, beat + 1), apart=True)

    assert [line.number for line in read_ledger(run)] == [0, 1, 2]
    assert len(list(Path(run.location, "ledger", writer.name).glob("*.jsonl"))) == 3


def test_metering_is_a_small_part_of_a_request(tmp_path: Path) -> None:
    figure = dollars.request_figure(tmp_path / "run")
    assert 0 < figure.value < 0.05
