from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from equipoise import hardware, storage
from equipoise.config import RunConfig
from equipoise.costs.estimate import estimate_run
from equipoise.costs.ledger_lines import node_line
from equipoise.costs.ledger_writer import LedgerWriter
from equipoise.pipeline.estimating import busy_note, record_actual, store_estimate
from equipoise.pipeline.kept_estimates import keep_estimate
from equipoise.pipeline.seen_runs import cache_folder, find_seen, observe, remember, run_kind
from equipoise.runs import Candidate, RunFolder


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def config(run_config: Callable[..., RunConfig]) -> RunConfig:
    return run_config(training={"epochs": 2.0}, distillation={"epochs": 3.0})


@pytest.fixture
def finished(tmp_path: Path, config: RunConfig, build_candidate: Callable[..., Candidate]) -> RunFolder:
    """A run of 200 s: a teacher of 60 s, one student of 40 s, two candidates of 15 s, outputs of 5 s."""
    run = RunFolder(tmp_path / "runs" / "first")
    run.claim(config.model_dump(mode="json"))
    run.put({"splits": {"train": {"rows": 1000}, "validation": {"rows": 100}}}, "data.json")
    rates = {"tokens_per_s": 500.0, "rows_per_s": 50.0}
    run.put({"seconds": 60.0, "loop_s": 40.0, "workers": 2, **rates}, "teacher", "trained.json")
    run.put({"seconds": 40.0, "loop_s": 30.0, "workers": 2}, "students", "layers-0-5", "trained.json")
    machine = {"cores": 2, "fingerprint": hardware.fingerprint(hardware.describe_hardware())}
    spent = {"train": 0.0, "export": 3.0, "quality": 10.0, "speed": 2.0}
    for candidate in (
        build_candidate(hardware=machine, seconds=spent),
        build_candidate((0, 5), "openvino", "int8", hardware=machine, seconds={**spent, "train": 40.0}),
    ):
        run.put(candidate.model_dump(mode="json"), "candidates", f"{candidate.recipe_hash}.json")
    clock = iter([0.0, 0.0, 5.0, 5.0, 5.0, 5.0, 5.0, 5.0]).__next__
    with LedgerWriter(run, config, "driver", clock=clock) as ledger:
        ledger.add(
            node_line(
                run_id="tiny", component="pipeline", node=ledger.node, book=ledger.book, start=0.0, stop=200.0
            )
        )
        line = node_line(
            run_id="tiny", component="training", node=ledger.node, book=ledger.book, start=0.0, stop=10.0
        )
        outputs = {"kind": "usage", "unit": "core-seconds", "quantity": 10.0, "detail": "teacher outputs"}
        ledger.add(line.model_copy(update=outputs))
    run.put({}, "test.json")
    return run


def test_a_finished_run_tells_what_it_took(finished: RunFolder, config: RunConfig) -> None:
    seen = observe(finished)

    assert seen is not None
    assert seen.seconds == {"teacher": 60, "outputs": 5, "students": 40, "candidates": 30, "rest": 65}
    assert (seen.start_s, seen.student_start_s) == (20, 10)
    assert (seen.size.teacher_rows, seen.size.student_rows, seen.size.student_depths) == (2000, 3000, (2,))
    assert (seen.size.row_tokens, seen.size.batch_size) == (10, config.training.batch_size)
    assert seen.kind == run_kind(config)


def test_what_a_teacher_computed_for_guided_students_is_among_its_outputs(
    finished: RunFolder, config: RunConfig
) -> None:
    with LedgerWriter(finished, config, "trial") as ledger:
        ledger.add(
            ledger.usage(
                "search", 20.0, 24.0, cores=1, used_core_seconds=4.0, detail="states",
                resource_type="task", resource_id="teacher/states/0",
            )
        )  # fmt: skip
    seen = observe(finished)

    assert seen is not None
    # Four core-seconds are two seconds of both cores.
    assert (seen.seconds["outputs"], seen.seconds["rest"]) == (7, 63)


def test_runs_beside_and_runs_remembered_are_found_once(finished: RunFolder, config: RunConfig) -> None:
    beside = str(Path(finished.location).parent / "next")
    assert [seen.run for seen in find_seen(config, beside)] == [finished.location]
    seen = observe(finished)
    assert seen is not None
    remember(seen)
    assert [seen.run for seen in find_seen(config, beside)] == [finished.location]
    assert [seen.run for seen in find_seen(config, None)] == [finished.location]


def test_a_run_of_two_tries_is_no_evidence(finished: RunFolder, config: RunConfig) -> None:
    for start in (0.0, 300.0):
        with LedgerWriter(finished, config, "node") as ledger:
            ledger.add(
                node_line(
                    run_id="tiny", component="pipeline", node=ledger.node, book=ledger.book,
                    start=start, stop=start + 100,
                )
            )  # fmt: skip
    seen = observe(finished)
    assert seen is not None
    assert seen.tries == 2
    remember(seen)
    assert find_seen(config, str(Path(finished.location).parent / "next")) == []


def test_a_finished_run_that_was_asked_for_again_is_evidence_all_the_same(
    finished: RunFolder, config: RunConfig
) -> None:
    assert record_actual(finished) is not None
    for start in (300.0, 400.0):
        with LedgerWriter(finished, config, "node") as ledger:
            ledger.add(
                node_line(
                    run_id="tiny", component="pipeline", node=ledger.node, book=ledger.book,
                    start=start, stop=start + 1,
                )
            )  # fmt: skip
    [seen] = find_seen(config, str(Path(finished.location).parent / "next"))
    assert (seen.run, seen.tries) == (finished.location, 1)


def test_runs_of_another_kind_or_machine_are_not_comparable(
    finished: RunFolder, run_config: Callable[..., RunConfig]
) -> None:
    seen = observe(finished)
    assert seen is not None
    remember(seen.model_copy(update={"fingerprint": "elsewhere"}))
    remember(seen)

    assert find_seen(run_config(model={"max_length": 16}), None) == []
    assert len(find_seen(run_config(), None)) == 1


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b'{"run": '])
def test_a_damaged_record_is_passed_over(finished: RunFolder, config: RunConfig, content: bytes) -> None:
    seen = observe(finished)
    assert seen is not None
    remember(seen)
    storage.put_bytes(str(cache_folder(seen.fingerprint) / "000.json"), content)
    (Path(finished.location) / "candidates" / "x.json").write_bytes(content)

    assert [seen.run for seen in find_seen(config, finished.location)] == [finished.location]


def test_estimate_and_actual_are_put_side_by_side_and_the_error_is_kept(
    finished: RunFolder, config: RunConfig
) -> None:
    seen = observe(finished)
    assert seen is not None
    held = estimate_run(
        seen.size, [seen.model_copy(update={"seconds": {**seen.seconds, "rest": 25.0}})],
        fingerprint="abc", core_second_usd=1e-5, node_usd_per_hour=0.1,
    )  # fmt: skip
    finished.put(held.model_dump(mode="json"), "estimate.json")
    record: Any = record_actual(finished)

    assert record["total"] == {"actual_s": 200, "estimated_s": 160}
    assert record["error"] == pytest.approx(0.25)
    assert record["within_range"] is True
    assert record["stages"]["rest"] == {"actual_s": 65, "estimated_s": 25}
    # A node of $0.08925 an hour was up for 200 s; the dollars of the estimate are at the prices given above.
    assert record["dollars"]["node"]["actual_usd"] == pytest.approx(200 / 3600 * 0.08925)
    assert record["dollars"]["node"]["estimated_usd"] == pytest.approx(160 / 3600 * 0.1)
    assert record["dollars"]["training"]["estimated_usd"] == held.training_usd.value
    assert finished.read("actual.json") == json.loads(json.dumps(record))
    [remembered] = find_seen(config, None)
    assert remembered.error == pytest.approx(0.25)
    assert record_actual(finished) == finished.read("actual.json")


def test_what_was_told_of_a_config_is_held_against_its_first_run(
    finished: RunFolder, config: RunConfig, run_config: Callable[..., RunConfig], cache: Path
) -> None:
    seen = observe(finished)
    assert seen is not None
    prices: dict[str, Any] = {"core_second_usd": 1e-5, "node_usd_per_hour": 0.1}
    told = estimate_run(
        seen.size, [seen.model_copy(update={"timed": True})], fingerprint=seen.fingerprint, **prices
    )
    keep_estimate(config, told)
    checked: Any = None  # Nothing is looked at but what was kept.
    first = RunFolder(cache / "elsewhere" / "first")

    assert store_estimate(first, run_config(training={"epochs": 3.0}), checked) is None
    assert store_estimate(first, config, checked) == told
    assert first.read("estimate.json")["basis"] == "timed steps"
    for file in (cache / "equipoise" / "estimates").rglob("*.json"):
        file.write_bytes(b"{")
    assert store_estimate(RunFolder(cache / "elsewhere" / "second"), config, checked) is None


def test_a_busy_machine_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    # What the machine is at cannot be had at will.
    for load, told in ((0.4, False), (38.0, True)):
        monkeypatch.setattr("os.getloadavg", lambda load=load: (load, 0.0, 0.0))
        monkeypatch.setattr(hardware, "usable_cores", lambda: [0, 1])
        assert (busy_note() is not None) is told
    assert "load 38.0 on 2 cores" in str(busy_note())


def test_a_run_without_an_estimate_is_remembered_too(finished: RunFolder, config: RunConfig) -> None:
    record: Any = record_actual(finished)

    assert (record["error"], record["total"]["estimated_s"]) == (None, None)
    assert len(find_seen(config, None)) == 1


def test_what_cannot_be_remembered_does_not_fail_the_run(
    finished: RunFolder, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache.write_text("a file where the folder should be")

    assert record_actual(finished) is None
    assert "is not remembered" in caplog.text
