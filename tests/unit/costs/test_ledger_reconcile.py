"""Lines are really dropped, doubled, stretched and cut off, and the ledger must not add up any more."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from equipoise import storage
from equipoise.config import RunConfig
from equipoise.costs.ledger import read_ledger
from equipoise.costs.ledger_lines import iso_time, node_line, storage_line, usage_line
from equipoise.costs.ledger_reconcile import Reconciliation, reconcile, require_reconciled
from equipoise.costs.ledger_settle import settle
from equipoise.costs.ledger_writer import LedgerWriter
from equipoise.errors import ReconcileError
from equipoise.runs import LedgerLine, RunFolder

Writer = Callable[[str], LedgerWriter]
Change = Callable[[list[dict[str, Any]], int], None]

BASE = 1_800_000_000.0  # A whole hour, in UTC.
NODE = "aws/c7i.large"


def add_usage(ledger: LedgerWriter, start: float, stop: float, cores: float, **options: Any) -> None:
    ledger.add(
        usage_line(
            run_id="tiny", component="search", charge_class="workload", node=ledger.node, book=ledger.book,
            cores=cores, start=BASE + start, stop=BASE + stop, **options,
        )
    )  # fmt: skip


def add_node(ledger: LedgerWriter, start: float, stop: float) -> None:
    ledger.add(
        node_line(
            run_id="tiny", component="pipeline", node=ledger.node, book=ledger.book,
            start=BASE + start, stop=BASE + stop, resource_id=ledger.name,
        )
    )  # fmt: skip


@pytest.fixture
def busy_run(writer: Writer, run: RunFolder) -> RunFolder:
    """Three hours of a node of two cores, 2,000 lines of random length on it, settled."""
    draw = random.Random(7)  # noqa: S311
    with writer("node") as node:
        for beat in range(0, 10_800, 20):
            add_node(node, beat, beat + 20)
    for core in range(2):
        with writer(f"core{core}") as ledger:
            at = 0.0
            for _ in range(1000):
                length = draw.uniform(1, 16)
                add_usage(ledger, at, at + length, draw.choice([0.5, 1.0]))
                at += length + draw.choice([0.0, draw.uniform(0, 4)])
    with writer("settle") as ledger:
        settle(run, ledger, ended=[node.name])
    return run


def change_lines(run: RunFolder, change: Change, share: float = 0.01, seed: int = 3) -> int:
    """Change a share of the lines of what ran, chosen at random; how many."""
    draw = random.Random(seed)  # noqa: S311
    chosen = 0
    for name in storage.list_files(run.path("ledger")):
        if not name.endswith(".jsonl") or not name.startswith("core"):
            continue
        path = Path(run.path("ledger", name))
        lines = [json.loads(text) for text in path.read_text().splitlines()]
        places = draw.sample(range(len(lines)), round(share * len(lines)))
        for place in sorted(places, reverse=True):
            change(lines, place)
        chosen += len(places)
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return chosen


def drop(lines: list[dict[str, Any]], place: int) -> None:
    del lines[place]


def double(lines: list[dict[str, Any]], place: int) -> None:
    lines.insert(place, dict(lines[place]))


def stretch(lines: list[dict[str, Any]], place: int) -> None:
    """Twice as long, at the same rate."""
    line = LedgerLine.model_validate(lines[place])
    from equipoise.costs.ledger_lines import line_period

    start, stop = line_period(line)
    lines[place] |= {
        "period_end": iso_time(stop.timestamp() + (stop - start).total_seconds()),
        "quantity": line.quantity * 2,
        "requested": line.quantity * 2,
        "billed_cost_usd": line.billed_cost_usd * 2,
    }


def without_numbers(change: Change) -> Change:
    """The same on lines that carry no number, so that the node-hours alone can tell."""

    def changed(lines: list[dict[str, Any]], place: int) -> None:
        change(lines, place)
        for line in lines:
            line["number"] = None

    return changed


def test_an_untouched_ledger_adds_up(busy_run: RunFolder) -> None:
    found = reconcile(busy_run)

    assert found.reconciles
    assert [period.node_hours for period in found.periods] == pytest.approx([1, 1, 1])
    for period in found.periods:
        assert period.busy_hours + period.idle_hours == pytest.approx(period.node_hours, rel=1e-9)
        assert 0.1 < period.busy_hours < 0.9
        assert period.node_usd == pytest.approx(0.08925)
        assert period.billed_usd == pytest.approx(0.08925)
        assert period.unsettled_hours == 0
    require_reconciled(found, busy_run.location)


@pytest.mark.parametrize("numbered", [True, False])
@pytest.mark.parametrize("change", [drop, double, stretch])
def test_one_percent_of_changed_lines_is_found(busy_run: RunFolder, change: Change, numbered: bool) -> None:
    assert change_lines(busy_run, change if numbered else without_numbers(change)) == 20
    found = reconcile(busy_run)

    assert found.mismatches
    worst = found.mismatches[0]
    assert worst.resource == NODE
    assert 0.001 < worst.difference < 0.1
    assert (worst.missing_hours > worst.excess_hours) == (change is drop)
    with pytest.raises(ReconcileError, match=rf"{NODE} from {worst.period_start[:16]}.*% off") as caught:
        require_reconciled(found, busy_run.location)
    assert caught.value.exit_status == 5


@pytest.mark.parametrize(("change", "words"), [(drop, "lost"), (double, "there twice")])
def test_a_single_line_is_named_however_small(busy_run: RunFolder, change: Change, words: str) -> None:
    change_lines(busy_run, change, share=0.001)
    found = reconcile(busy_run)

    assert len(found.faults) == 2
    for fault in found.faults:
        assert words in fault.what
        assert fault.where.startswith("core")
        assert NODE in fault.where
    with pytest.raises(ReconcileError):
        require_reconciled(found, busy_run.location)


def test_the_last_line_and_a_whole_writer_are_missed_too(busy_run: RunFolder) -> None:
    paths = sorted(Path(busy_run.location, "ledger").glob("core*/*.jsonl"))
    paths[0].write_text("".join(paths[0].read_text().splitlines(keepends=True)[:-1]))
    paths[1].unlink()

    told = [fault.what.partition(";")[0] for fault in reconcile(busy_run).faults]
    assert told == ["line 999 is lost", "all of its 1000 lines are lost"]


@pytest.mark.parametrize("kept", [0.3, 0.5, 0.9])
def test_a_truncated_object_is_named_and_its_whole_lines_count(busy_run: RunFolder, kept: float) -> None:
    path = min(Path(busy_run.location, "ledger").glob("core0*/*.jsonl"))
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    whole = content[: int(len(content) * kept)].count(b"\n")
    before, found = 1000, reconcile(busy_run)

    assert found.faults[0].where == f"{path}:{whole + 1}"
    assert "damaged line" in found.faults[0].what
    assert any(f"lines {whole} to {before - 1} are lost" in fault.what for fault in found.faults)
    assert found.mismatches


def test_a_running_node_is_not_held_against_its_lines(writer: Writer, run: RunFolder) -> None:
    with writer("node") as node:
        add_node(node, 0, 3600)
    with writer("core") as ledger:
        add_usage(ledger, 0, 1800, 1)
    (period,) = reconcile(run).periods

    assert period.within(0)
    assert period.idle_hours == pytest.approx(0.75)
    assert period.unsettled_hours == pytest.approx(1)


def test_what_claims_more_than_an_open_node_is_found_all_the_same(writer: Writer, run: RunFolder) -> None:
    with writer("node") as node, writer("core") as ledger:
        add_node(node, 0, 3600)
        add_usage(ledger, 0, 3600, 2)
        add_usage(ledger, 0, 36, 1)
    (period,) = reconcile(run).periods

    assert period.excess_hours == pytest.approx(0.005)
    assert not period.within(0.001)


def test_lines_without_any_node_do_not_add_up(writer: Writer, run: RunFolder) -> None:
    with writer("core") as ledger:
        add_usage(ledger, 0, 10, 1)

    with pytest.raises(ReconcileError, match="no node was up"):
        require_reconciled(reconcile(run), run.location)


def test_work_in_no_time_is_found(writer: Writer, run: RunFolder) -> None:
    with writer("node") as node, writer("core") as ledger:
        add_node(node, 0, 3600)
        add_usage(ledger, 5, 5, 1, used_core_seconds=7.0)

    assert "7 core-seconds in no time" in reconcile(run).faults[0].what


def test_use_of_what_others_reserved_is_shared_and_no_mismatch(writer: Writer, run: RunFolder) -> None:
    with writer("node") as node, writer("core") as ledger:
        add_node(node, 0, 3600)
        add_usage(ledger, 0, 3600, 1, used_core_seconds=3960.0)
        add_usage(ledger, 0, 3600, 1, used_core_seconds=3000.0)
    (period,) = reconcile(run).periods

    assert period.within(0)
    assert period.shared_hours == pytest.approx(0.05)


def test_an_artefact_is_not_billed_twice(writer: Writer, run: RunFolder) -> None:
    with writer("settle") as ledger:
        for start, stop in ((0, 100), (100, 200), (150, 250)):
            ledger.add(
                storage_line(
                    run_id="tiny", book=ledger.book, stored_bytes=10**9, start=BASE + start,
                    stop=BASE + stop, resource_id="models/abc",
                )
            )  # fmt: skip

    (fault,) = reconcile(run).faults
    assert "models/abc is billed twice" in fault.what


def test_an_empty_ledger_reconciles(run: RunFolder) -> None:
    assert reconcile(run) == Reconciliation(0, 0.001, [], [], 0)


@given(cut=st.floats(1, 10_799))
@settings(deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_splitting_the_time_changes_no_sum(busy_run: RunFolder, cut: float) -> None:
    whole = reconcile(busy_run, period_s=86_400).periods
    parts = [
        period
        for since, until in ((BASE, BASE + cut), (BASE + cut, BASE + 10_800))
        for period in reconcile(busy_run, since=since, until=until).periods
    ]

    for name in ("node_hours", "busy_hours", "idle_hours", "node_usd", "billed_usd"):
        both = [sum(getattr(period, name) for period in periods) for periods in (whole, parts)]
        assert both[0] == pytest.approx(both[1], rel=1e-9)


# Settling


def test_a_killed_block_is_billed_until_its_node_was_gone(writer: Writer, run: RunFolder, clock: Any) -> None:
    with writer("node") as node:
        add_node(node, 0, 100)
    clock.now = BASE + 40
    # Entered and never left: what SIGKILL leaves behind.
    killed = writer("driver").meter("training", cores=2, detail="fine-tune")
    killed.__enter__()
    clock.now = BASE + 200
    assert reconcile(run).open_blocks == 1
    with writer("settle") as ledger:
        settle(run, ledger)
    (line,) = (line for line in read_ledger(run) if line.component == "training")

    assert (line.charge_class, line.quantity, line.detail) == ("overhead", 120, "fine-tune (killed)")
    assert line.period_end == iso_time(BASE + 100)
    found = reconcile(run)
    assert found.reconciles
    assert found.open_blocks == 0
    assert found.periods[0].idle_hours == pytest.approx(80 / 7200)


def test_a_process_that_is_killed_in_a_block_is_billed_by_the_next(run: RunFolder, config: RunConfig) -> None:
    program = textwrap.dedent(
        """
        import sys, time
        from equipoise.config import RunConfig
        from equipoise.costs.ledger_writer import LedgerWriter
        from equipoise.costs.ledger_lines import node_line
        from equipoise.runs import RunFolder

        run, config = RunFolder(sys.argv[1]), RunConfig.model_validate_json(sys.argv[2])
        node, since = LedgerWriter(run, config, "node"), LedgerWriter(run, config, "node").clock()
        with LedgerWriter(run, config, "driver") as ledger:
            with ledger.meter("search", cores=1, detail="done"):
                pass
            with ledger.meter("training", cores=2, detail="never done"):
                while True:
                    now = node.clock()
                    node.add(
                        node_line(
                            run_id="tiny", component="pipeline", node=node.node, book=node.book,
                            start=since, stop=now, resource_id=node.name,
                        )
                    )
                    node.flush()
                    since = now
                    print(node.name, flush=True)
                    time.sleep(0.1)
        """
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, run.location, config.model_dump_json()],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": ":".join(sys.path)},
    )
    assert process.stdout is not None
    with process, process.stdout as output:
        names = [output.readline().strip() for _ in range(4)]
        process.send_signal(signal.SIGKILL)
    with LedgerWriter(run, config, "settle") as ledger:
        settle(run, ledger, ended=names[:1])
    lines = read_ledger(run)
    (killed,) = (line for line in lines if line.component == "training")

    assert (killed.charge_class, killed.detail) == ("overhead", "never done (killed)")
    assert killed.period_end == max(line.period_end for line in lines if line.kind == "node")
    assert killed.quantity > 2 * 0.25
    assert {line.detail for line in lines if line.component == "search"} == {"done"}
    assert reconcile(run).reconciles


def test_what_ran_after_a_killed_nodes_last_line_shows_that_it_was_up(
    writer: Writer, run: RunFolder, clock: Any
) -> None:
    with writer("node") as node, writer("core") as ledger:
        add_node(node, 0, 100)
        add_usage(ledger, 90, 112, 2)
    # While it is at work, its own line of these seconds is still to come.
    assert reconcile(run).reconciles
    clock.now = BASE + 500
    with writer("settle") as closing:
        settle(run, closing)

    assert max(line.period_end for line in read_ledger(run) if line.kind == "node") == iso_time(BASE + 112)
    found = reconcile(run)
    assert found.reconciles
    assert found.periods[0].node_hours == pytest.approx(112 / 3600)


def test_a_line_far_beyond_its_node_is_in_excess_all_the_same(
    writer: Writer, run: RunFolder, clock: Any
) -> None:
    with writer("node") as node, writer("core") as ledger:
        add_node(node, 0, 100)
        add_usage(ledger, 90, 200, 2)
    clock.now = BASE + 500
    with writer("settle") as closing:
        settle(run, closing)

    assert reconcile(run).periods[0].excess_hours == pytest.approx(100 / 3600)


def test_under_a_lock_an_earlier_node_is_known_to_be_gone(writer: Writer, run: RunFolder, clock: Any) -> None:
    with writer("node") as killed, writer("core") as ledger:
        add_node(killed, 0, 1)
        add_usage(ledger, 0.5, 12, 2)
    with writer("node") as node:
        add_node(node, 15, 40)
    # The next try ends within a minute of the last sign of the one that was killed.
    clock.now = BASE + 41
    with writer("settle") as closing:
        settle(run, closing, ended=[node.name], exclusive="pipeline")

    found = reconcile(run)
    assert found.reconciles
    assert found.periods[0].node_hours == pytest.approx((12 + 25) / 3600)
    nodes = {line.resource_id for line in read_ledger(run) if line.charge_class == "idle"}
    assert nodes == {killed.name, node.name}


def test_a_node_is_settled_once(writer: Writer, run: RunFolder, clock: Any) -> None:
    with writer("node") as node, writer("core") as ledger:
        add_node(node, 0, 100)
        add_usage(ledger, 0, 100, 2)
    clock.now = BASE + 500
    for _ in range(2):
        with writer("settle") as ledger:
            settle(run, ledger)
    idle = [line for line in read_ledger(run) if line.charge_class == "idle"]

    assert [(line.quantity, line.resource_id) for line in idle] == [(0, node.name)]


def test_a_node_at_work_is_left_alone(writer: Writer, run: RunFolder, clock: Any) -> None:
    with writer("node") as node:
        add_node(node, 0, 100)
    clock.now = BASE + 130
    with writer("settle") as ledger:
        settle(run, ledger)
    assert len(read_ledger(run)) == 1
    with writer("settle") as ledger:
        settle(run, ledger, ended=[node.name])
    assert len(read_ledger(run)) == 2


def test_idle_time_of_a_spot_node_costs_what_the_node_does(
    run: RunFolder, config: RunConfig, clock: Any
) -> None:
    spot = {"usd_per_hour": 0.036, "clock": clock}
    with (
        LedgerWriter(run, config, "node", **spot) as node,
        LedgerWriter(run, config, "core", **spot) as ledger,
    ):
        node.add(
            node_line(
                run_id="tiny", component="serving", node=node.node, book=node.book,
                start=BASE, stop=BASE + 3600, resource_id=node.name, usd_per_hour=0.036,
            )
        )  # fmt: skip
        add_usage(ledger, 0, 3600, 0.5, usd_per_hour=0.036)
    with LedgerWriter(run, config, "settle", clock=clock) as closing:
        settle(run, closing, ended=[node.name])
    [idle] = [line for line in read_ledger(run) if line.charge_class == "idle"]

    assert idle.billed_cost_usd == pytest.approx(0.036 * 3 / 4)
    assert idle.quantity == pytest.approx(1.5 * 3600)
    assert reconcile(run).reconciles


def test_nodes_of_one_type_share_their_idle_time(writer: Writer, run: RunFolder) -> None:
    with writer("one") as one, writer("two") as two, writer("core") as ledger:
        add_node(one, 0, 100)
        add_node(two, 50, 150)
        add_usage(ledger, 0, 150, 1)
    with writer("settle") as closing:
        settle(run, closing, ended=[one.name, two.name])
    idle = [line for line in read_ledger(run) if line.charge_class == "idle"]

    assert sum(line.quantity for line in idle) == pytest.approx(2 * 200 - 150)
    assert {line.resource_id for line in idle} == {one.name, two.name}
    assert reconcile(run).reconciles
