from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from equipoise.config import RunConfig
from equipoise.data import DataReport, hash_rows, prepare_data
from equipoise.errors import DataError

Config = Callable[..., RunConfig]
Write = Callable[[str, list[tuple[str, str]]], str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def put(name: str, rows: list[tuple[str, str]]) -> str:
        path = tmp_path / name
        path.write_text(
            "".join(json.dumps({"text": t, "label": y}) + "\n" for t, y in rows), encoding="utf-8"
        )
        return str(path)

    return put


def repeated(write: Write) -> dict[str, str]:
    """Train of ten good rows, one repeat, one conflict, one test leak, two validation leaks, one empty."""
    good = [(f"text {n}", "ab"[n % 2]) for n in range(10)]
    bad = [("text 0", "a"), ("text 1", "a"), ("leak", "a"), ("v1", "b"), ("v2", "b"), (" \n", "a")]
    return {
        "train": write("train.jsonl", good + bad),
        "test": write("test.jsonl", [("leak", "a"), ("t", "b"), ("", "a"), ("both", "a")]),
        "validation": write("val.jsonl", [("v1", "b"), ("v2", "a"), ("both", "a")]),
    }


def test_validation_is_held_out_of_train(run_config: Config) -> None:
    found = prepare_data(run_config())
    assert found.labels == ("billing", "delivery", "travel")
    assert (len(found.train), len(found.validation), len(found.test)) == (108, 12, 60)
    assert Counter(found.validation.labels) == {"billing": 4, "delivery": 4, "travel": 4}
    assert not set(found.train.inputs) & set(found.validation.inputs)


def test_the_same_seed_gives_the_same_splits(run_config: Config) -> None:
    first, second = prepare_data(run_config(seed=4)), prepare_data(run_config(seed=4))
    assert first == second
    other = prepare_data(run_config(seed=5))
    assert other.report.splits["validation"].sha256 != first.report.splits["validation"].sha256
    assert other.report.splits["test"].sha256 == first.report.splits["test"].sha256


def test_train_rows_takes_a_stratified_part_and_leaves_validation(run_config: Config) -> None:
    whole, part = prepare_data(run_config()), prepare_data(run_config(data={"train_rows": 30}))
    assert Counter(part.train.labels) == {"billing": 10, "delivery": 10, "travel": 10}
    assert set(part.train.inputs) < set(whole.train.inputs)
    assert part.validation == whole.validation
    assert part.report.unused_rows == 78
    assert "78 training rows are left out by data.train_rows." in part.report.sentences()


def test_repeats_and_leaks_are_counted_and_dropped(run_config: Config, write: Write) -> None:
    found = prepare_data(run_config(data=repeated(write)))
    assert found.train.inputs == [f"text {n}" for n in range(10)]
    assert found.train.labels[1] == "b"
    assert found.test.inputs == ["leak", "t", "both"]
    repeats = found.report.repeats
    assert (repeats.duplicates_in_train, repeats.conflicting_duplicates) == (2, 2)
    assert (repeats.test_leakage, repeats.validation_leakage, repeats.validation_in_test) == (1, 2, 1)
    assert found.report.dropped_rows == 5
    assert found.report.splits["train"].empty_texts == 1
    assert found.report.splits["test"].empty_texts == 1
    said = found.report.sentences()
    assert "10 train, 3 validation, 3 test rows; 2 labels." in said
    assert "1 test rows also stand in train: there they were dropped." in said
    assert "1 train rows have an empty text and were dropped." in said
    assert all("\n" not in sentence for sentence in said)


def test_repeats_are_kept_on_request(run_config: Config, write: Write) -> None:
    found = prepare_data(run_config(data={**repeated(write), "deduplicate": False}))
    assert len(found.train) == 15
    assert found.report.dropped_rows == 0
    assert "2 training rows repeat an earlier text: kept." in found.report.sentences()


def test_a_kept_repeat_may_leak_into_a_derived_validation(run_config: Config, write: Write) -> None:
    train = write("train.jsonl", [("same", "a"), ("other", "b")] * 50)
    test = write("test.jsonl", [("t", "a")])
    kept = prepare_data(run_config(data={"train": train, "test": test, "deduplicate": False}))
    assert kept.report.repeats.validation_leakage == len(kept.validation) == 10


def test_the_report_is_json_and_describes_each_split(run_config: Config) -> None:
    found = prepare_data(run_config())
    assert DataReport.model_validate_json(found.report.model_dump_json()) == found.report
    train = found.report.splits["train"]
    assert train.rows == len(found.train)
    assert train.label_counts == {"billing": 36, "delivery": 36, "travel": 36}
    assert train.imbalance_ratio == 1.0
    assert train.length_percentiles["p100"] == max(map(len, found.train.inputs))
    assert (
        train.length_percentiles["p5"] <= train.length_percentiles["p50"] <= train.length_percentiles["p95"]
    )
    assert train.sha256 == hash_rows(found.train)


def test_the_hash_is_of_content_and_order(run_config: Config) -> None:
    rows = prepare_data(run_config()).train
    assert hash_rows(rows) != hash_rows(rows.select(range(len(rows) - 1, -1, -1)))
    assert hash_rows(rows) != hash_rows(rows.select(range(len(rows) - 1)))


def test_one_class_is_refused(run_config: Config, write: Write) -> None:
    train = write("train.jsonl", [(f"text {n}", "only") for n in range(20)])
    with pytest.raises(DataError, match=r"train has one class only \(got 'only'\)"):
        prepare_data(run_config(data={"train": train}))


@pytest.mark.parametrize("split", ["test", "validation"])
def test_a_label_without_training_rows_is_named(run_config: Config, write: Write, split: str) -> None:
    extra = write("extra.jsonl", [("a text", "billing"), ("unseen", "weather"), ("more", "music")])
    message = rf"data\.{split}: 2 of its labels have no training row: 'music', 'weather'"
    with pytest.raises(DataError, match=message):
        prepare_data(run_config(data={split: extra}))


def test_a_class_lost_to_train_rows_is_named(run_config: Config, write: Write) -> None:
    train = write("train.jsonl", [(f"{label} {n}", str(label)) for label in range(20) for n in range(9)])
    test = write("test.jsonl", [(f"test {label}", str(label)) for label in range(20)])
    with pytest.raises(DataError, match=r"or raise data\.train_rows"):
        prepare_data(run_config(data={"train": train, "test": test, "train_rows": 8}))


def test_nothing_left_of_a_split_is_refused(run_config: Config, write: Write) -> None:
    empty = write("empty.jsonl", [("", "billing"), ("  ", "travel")])
    with pytest.raises(DataError, match=r"data\.test: .*every text is empty"):
        prepare_data(run_config(data={"test": empty}))
    same = write("same.jsonl", [("one", "a"), ("two", "b")])
    with pytest.raises(DataError, match="every training text also stands in test or validation"):
        prepare_data(run_config(data={"train": same, "test": same}))


def test_the_shared_intents(run_config: Config, shared_data: Path) -> None:
    folder = shared_data / "clinc150"
    found = prepare_data(
        run_config(
            data={
                "train": str(folder / "train.jsonl"),
                "validation": str(folder / "val.jsonl"),
                "test": str(folder / "test.jsonl"),
            }
        )
    )
    assert len(found.labels) == 150
    assert (found.report.repeats.test_leakage, found.report.repeats.validation_leakage) == (2, 3)
    assert (len(found.validation), len(found.test)) == (3000, 4500)
