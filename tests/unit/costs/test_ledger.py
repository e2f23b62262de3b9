from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from equipoise import storage
from equipoise.config import RunConfig
from equipoise.costs.ledger import ledger_usd, read_ledger
from equipoise.costs.ledger_lines import node_line, usage_line
from equipoise.costs.ledger_writer import LedgerWriter
from equipoise.errors import EquipoiseError, InputError, StorageError
from equipoise.runs import RunFolder

Writer = Callable[[str], LedgerWriter]


def test_metered_lines_come_back_as_written(writer: Writer, run: RunFolder, clock: Any) -> None:
    with writer("trial-1") as ledger:
        with ledger.meter("search", cores=2, detail="distill"):
            clock.advance(30)
        with ledger.meter("evaluation", cores=1, charge_class="overhead"):
            clock.advance(0.25)
    distilled, evaluated = read_ledger(run)

    assert (distilled.run_id, distilled.kind, distilled.component) == ("tiny", "usage", "search")
    assert (distilled.quantity, distilled.unit, distilled.detail) == (60, "core-seconds", "distill")
    assert distilled.resource == "aws/c7i.large"
    assert distilled.billed_cost_usd == pytest.approx(60 * 0.08925 / 2 / 3600)
    assert distilled.period_start == "2027-01-15T08:00:00.000000+00:00"
    assert distilled.period_end == "2027-01-15T08:00:30.000000+00:00"
    assert (evaluated.charge_class, evaluated.quantity) == ("overhead", 0.25)


def objects(run: RunFolder) -> list[str]:
    """Locations of the ledger's objects of lines."""
    names = storage.list_files(run.path("ledger"))
    return [run.path("ledger", name) for name in names if name.endswith(".jsonl")]


def test_each_block_and_each_flush_is_an_object(writer: Writer, run: RunFolder) -> None:
    ledger = writer("a")
    with ledger:
        for _ in range(2):
            with ledger.meter("search", cores=1):
                pass
        ledger.flush()

    folder = f"ledger/{ledger.name}"
    assert objects(run) == [run.path(folder, name) for name in ("000000.jsonl", "000001.jsonl")]
    assert run.read(folder, "closed.json") == {"lines": 2}
    assert [(line.writer, line.number) for line in read_ledger(run)] == [(ledger.name, 0), (ledger.name, 1)]


def test_a_block_is_billed_by_the_larger_of_request_and_usage(
    writer: Writer, run: RunFolder, clock: Any
) -> None:
    with writer("a") as ledger:
        for used in (None, 15.0, 45.0):
            with ledger.meter("search", cores=2) as block:
                clock.advance(10)
                block.used_core_seconds = used
    found = [(line.quantity, line.requested, line.used, line.basis) for line in read_ledger(run)]

    assert found == [(20, 20, None, "request"), (20, 20, 15, "request"), (45, 20, 45, "usage")]


def test_memory_and_gpus_take_their_share_of_the_node(writer: Writer) -> None:
    book = writer("a").book
    options: dict[str, Any] = {
        "run_id": "r", "component": "serving", "charge_class": "workload", "node": "aws/c7i.large",
        "book": book, "start": 0, "stop": 10,
    }  # fmt: skip

    # 3 of 4 GiB are three quarters of the node, as 1.5 of its 2 cores are.
    assert usage_line(cores=1, memory_gib=3, **options).quantity == 15
    assert usage_line(cores=1, memory_gib=1, **options).quantity == 10


def test_gpus_take_their_share_of_the_node_too(writer: Writer) -> None:
    book = writer("a").book
    node = book.node("aws/g6.xlarge")
    line = usage_line(
        run_id="r", component="serving", charge_class="workload", node="aws/g6.xlarge", book=book,
        cores=1, gpus=1, start=0, stop=3600,
    )  # fmt: skip

    # Its only GPU is the whole node, however few cores are taken.
    assert line.quantity == node.vcpus * 3600
    assert line.billed_cost_usd == pytest.approx(node.usd_per_hour)


def test_a_node_at_its_spot_price_is_billed_at_that_and_listed_at_the_other(
    run: RunFolder, config: RunConfig, clock: Any
) -> None:
    with LedgerWriter(run, config, "a", usd_per_hour=0.0363, clock=clock) as ledger:
        with ledger.meter("serving", cores=1):
            clock.advance(3600)
        ledger.add(
            node_line(
                run_id="tiny", component="serving", node=ledger.node, book=ledger.book,
                start=clock.now - 3600, stop=clock.now, usd_per_hour=ledger.usd_per_hour,
            )
        )  # fmt: skip
    half, whole = read_ledger(run)

    assert half.billed_cost_usd == pytest.approx(0.0363 / 2)
    assert whole.billed_cost_usd == pytest.approx(0.0363)
    assert half.list_unit_price * half.quantity == pytest.approx(0.08925 / 2)
    assert whole.list_unit_price * whole.quantity == pytest.approx(0.08925)


def test_workers_share_their_block(writer: Writer, run: RunFolder, clock: Any) -> None:
    with writer("a") as ledger, ledger.meter("training", cores=2, resource_id="teacher/") as block:
        clock.advance(10)
        block.worker_cpu_s = [9.0, 12.0]

    assert [(line.resource_id, line.quantity, line.used, line.basis) for line in read_ledger(run)] == [
        ("teacher/0", 10, 9, "request"), ("teacher/1", 12, 12, "usage"),
    ]  # fmt: skip


def test_parts_take_the_place_of_their_block(writer: Writer, run: RunFolder, clock: Any) -> None:
    with writer("a") as ledger:
        with ledger.meter("training", cores=2) as block:
            clock.advance(10)
            block.parts = [
                usage_line(
                    run_id="tiny", component="training", charge_class="workload", node=ledger.node,
                    book=ledger.book, cores=1, start=clock.now - 10, stop=clock.now, resource_id=str(worker),
                )
                for worker in range(2)
            ]  # fmt: skip
        with ledger.meter("search", cores=1):
            clock.advance(1)

    assert [(line.number, line.resource_id, line.quantity) for line in read_ledger(run)] == [
        (0, "0", 10), (1, "1", 10), (2, "", 1),
    ]  # fmt: skip


def test_no_ledger_is_no_lines(run: RunFolder) -> None:
    assert read_ledger(run) == []


def test_a_block_that_raises_is_billed_as_overhead(writer: Writer, run: RunFolder, clock: Any) -> None:
    def fail() -> None:
        with writer("a") as ledger, ledger.meter("training", cores=2):
            clock.advance(5)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    (line,) = read_ledger(run)

    assert (line.charge_class, line.component, line.quantity) == ("overhead", "training", 10)


def test_a_clock_set_back_bills_nothing(writer: Writer, run: RunFolder, clock: Any) -> None:
    with writer("a") as ledger, ledger.meter("search", cores=2):
        clock.advance(-60)

    assert read_ledger(run)[0].quantity == 0


@pytest.mark.parametrize("name", ["", "../a", "a/b", ".hidden", "a b"])
def test_a_writers_name_stays_in_the_ledger(writer: Writer, name: str) -> None:
    with pytest.raises(EquipoiseError, match="ledger writer's name"):
        writer(name)


def test_two_writers_of_one_name_lose_no_line(writer: Writer, run: RunFolder) -> None:
    first, second = writer("a"), writer("a")
    with first, second, first.meter("search", cores=1), second.meter("training", cores=1):
        pass

    assert {(line.writer, line.component) for line in read_ledger(run)} == {
        (first.name, "search"),
        (second.name, "training"),
    }


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: text[:-30], r"000000\.jsonl:3: damaged ledger line"),
        (lambda text: text.replace('"kind":"usage"', '"kind":"lunch"', 1), r"000000\.jsonl:1: .*kind"),
        (lambda text: text.replace("\n", "\n\n", 1), r"000000\.jsonl:2: damaged"),
        (lambda text: text.replace('"quantity":10.0', '"quantity":-1', 1), r":1: .*quantity"),
        (lambda text: text.replace('"quantity":10.0', '"quantity":NaN', 1), r":1: .*quantity"),
        (lambda text: text.replace("2027-01-15T08:00:10", "2026-01-15T08:00:10", 1), r":1: .*before"),
        (lambda text: text.replace("+00:00", "", 1), r":1: .*no offset"),
        (lambda text: text.replace("2027-01-15T08:00:00.000000", "yesterday", 1), r":1: .*ISO 8601"),
        (lambda text: "", r":1: damaged"),
    ],
)
def test_a_damaged_line_is_named(
    writer: Writer, run: RunFolder, clock: Any, damage: Callable[[str], str], message: str
) -> None:
    ledger = writer("a")
    for _ in range(3):
        clock.advance(10)
        ledger.add(
            usage_line(
                run_id="tiny", component="search", charge_class="workload", node=ledger.node,
                book=ledger.book, cores=1, start=clock.now - 10, stop=clock.now,
            )
        )  # fmt: skip
    ledger.flush()
    path = pathlib.Path(*objects(run))
    damaged = damage(path.read_text())
    assert damaged != path.read_text()
    path.write_text(damaged)

    with pytest.raises(InputError, match=message):
        read_ledger(run)


def test_dollars_by_component_and_class_have_one_sum(writer: Writer, run: RunFolder, clock: Any) -> None:
    with writer("a") as ledger:
        for component in ("training", "search"):
            with ledger.meter(component, cores=2):
                clock.advance(3600)
        with ledger.meter("search", cores=2, charge_class="overhead"):
            clock.advance(3600)
        ledger.add(
            node_line(
                run_id="tiny", component="pipeline", node=ledger.node, book=ledger.book,
                start=clock.now - 10_800, stop=clock.now,
            )
        )  # fmt: skip
    totals = ledger_usd(read_ledger(run))

    assert totals["component"] == pytest.approx({"search": 2 * 0.08925, "training": 0.08925})
    assert totals["charge_class"] == pytest.approx({"overhead": 0.08925, "workload": 2 * 0.08925})


def test_nodes_of_one_period_are_billed_each(writer: Writer) -> None:
    ledger = writer("a")
    line = node_line(
        run_id="tiny", component="serving", node="gcp/c3-standard-4", book=ledger.book,
        start=0, stop=1800, count=3,
    )  # fmt: skip

    assert (line.kind, line.unit, line.quantity) == ("node", "node-seconds", 5400)
    assert line.billed_cost_usd == pytest.approx(1.5 * 0.20161)


def test_a_killed_writer_leaves_whole_objects(run: RunFolder, config: RunConfig) -> None:
    program = textwrap.dedent(
        """
        import sys
        from equipoise.config import RunConfig
        from equipoise.costs.ledger_writer import LedgerWriter
        from equipoise.runs import RunFolder

        ledger = LedgerWriter(RunFolder(sys.argv[1]), RunConfig.model_validate_json(sys.argv[2]), "a")
        while True:
            for _ in range(50):
                with ledger.meter("search", cores=1, detail="x" * 200):
                    pass
            ledger.flush()
            print("flushed", flush=True)
        """
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, run.location, config.model_dump_json()],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": ":".join(sys.path)},
    )
    assert process.stdout is not None
    with process, process.stdout as output:
        for _ in range(5):
            assert output.readline() == b"flushed\n"
        process.send_signal(signal.SIGKILL)
    lines = read_ledger(run)

    assert len(lines) >= 250
    assert {line.number for line in lines} == set(range(len(lines)))


@pytest.fixture
def tiny_disk(tmp_path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A mounted file system of 64 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"a small tmpfs cannot be mounted here: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_keeps_the_lines_for_another_try(tiny_disk: pathlib.Path, config: RunConfig) -> None:
    run = RunFolder(tiny_disk / "run")
    ledger = LedgerWriter(run, config, "a")
    with ledger.meter("search", cores=1):
        pass
    filler = tiny_disk / "filler"
    with ledger.meter("search", cores=1, detail="x" * 5000), pytest.raises(OSError, match="No space"):
        filler.write_bytes(b"x" * 100_000)

    with pytest.raises(StorageError, match="disk is full"), ledger.meter("search", cores=1):
        pytest.fail("a block ran whose start is not on record")
    with pytest.raises(StorageError, match="disk is full"):
        ledger.close()
    assert len(read_ledger(run)) == 1

    filler.unlink()
    ledger.close()
    assert [line.number for line in read_ledger(run)] == [0, 1]
    assert run.read("ledger", ledger.name, "closed.json") == {"lines": 2}


def test_a_failed_put_is_tried_again(writer: Writer, run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    put = storage.put_bytes

    def land_and_fail(location: str, content: bytes) -> None:
        put(location, content)
        raise StorageError("timed out", where=location)

    ledger = writer("a")
    with ledger.meter("search", cores=1):
        monkeypatch.setattr(storage, "put_bytes", land_and_fail)
    with pytest.raises(StorageError):
        ledger.flush()
    monkeypatch.setattr(storage, "put_bytes", put)
    with ledger.meter("evaluation", cores=1):
        pass
    ledger.flush()

    assert [line.component for line in read_ledger(run)] == ["search", "evaluation"]
