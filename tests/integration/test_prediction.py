"""`equipoise predict` and `equipoise evaluate`: the commands, real, over a tiny bundle."""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from equipoise.bundle import Bundle, write_bundle
from equipoise.engines import Predictor, open_engine
from equipoise.pipeline.prediction import PART_ROWS
from equipoise.tasks.text_classification import TextClassification

ROWS = 4 * PART_ROWS


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, tiny_classifier: Path) -> Bundle:
    from tokenizers import Tokenizer

    task = TextClassification(
        Tokenizer.from_file(str(tiny_classifier / "tokenizer.json")), ("billing", "delivery", "travel"), 32
    )
    return write_bundle(
        tmp_path_factory.mktemp("predict") / "bundle",
        name="tiny",
        task=task,
        engine="torch",
        precision="fp32",
        model_folder=tiny_classifier,
        candidate={},
    )


@pytest.fixture(scope="module")
def texts(intent_rows: Callable[[int, int], list[tuple[str, str]]]) -> list[str]:
    known = [text for text, _ in intent_rows(200, 5)]
    return [f"{known[number % 200]} {number}" for number in range(ROWS)]


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> Path:
    """The texts as CSV; among them one that is empty, one of too many columns, one that is too long and one
    that is no UTF-8, after them one that is empty."""
    path = tmp_path_factory.mktemp("predict") / "in.csv"
    with path.open("w", encoding="utf-8", newline="", errors="surrogateescape") as file:
        writer = csv.writer(file)
        writer.writerow(("id", "text"))
        for number, text in enumerate(texts):
            if number == 5:
                writer.writerow((number, " "))
            if number == 3000:
                writer.writerow((number, "one", "column too many"))
            if number == 3500:
                writer.writerow((number, "long " * 100_000))
            if number == 4050:
                writer.writerow((number, "caf\udce9"))
            writer.writerow((number, text))
        writer.writerow((ROWS, " "))
    return path


def read_parts(out: Path) -> list[dict[str, Any]]:
    return read_lines(sorted((out / "parts").iterdir()))


def read_lines(files: list[Path]) -> list[dict[str, Any]]:
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def test_a_killed_prediction_goes_on_and_equals_one_in_process(
    runs: Any, bundle: Bundle, table: Path, texts: list[str], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    arguments = ("predict", str(bundle.folder), str(table), str(out))
    process = runs.start(*arguments)
    parts = out / "parts"
    deadline = time.monotonic() + 240
    while not any(parts.glob("rows-*")) and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.02)
    runs.kill(process)
    process.communicate()
    runs.clean()
    first = {part.name: part.stat().st_mtime_ns for part in parts.glob("rows-*")}
    done = sum(len((parts / name).read_text().splitlines()) for name in first)
    assert 0 < done < ROWS

    joined = tmp_path / "all.jsonl"
    again = runs.call(*arguments, "--join", str(joined), "--json")
    assert again.returncode == 0, again.stderr
    record = json.loads(again.stdout)
    assert record["rows"] == ROWS
    assert record["rows_of_earlier_tries"] == done
    assert record["bad_rows"] == 5
    for name, written in first.items():
        assert (parts / name).stat().st_mtime_ns == written

    answers = read_parts(out)
    assert [answer["row"] for answer in answers] == list(range(ROWS))
    assert joined.read_text() == "".join(part.read_text() for part in sorted(parts.iterdir()))
    predictor = Predictor(bundle.load_task(), open_engine("torch", bundle.model_folder, "fp32"))
    labels = bundle.manifest.task["labels"]
    expected = [labels[index] for index in predictor.answers(texts).predicted]
    assert [answer["label"] for answer in answers] == expected

    bad = read_lines(sorted((out / "bad").iterdir()))
    assert [entry["reason"] for entry in bad] == [
        "is empty",
        "line has 3 columns where the header has 2",
        "text has 500,000 bytes, more than data.max_row_bytes allows",
        "is not UTF-8 text: invalid continuation byte",
        "is empty",
    ]

    once_more = runs.call(*arguments, "--json", "--workers", "1")
    assert once_more.returncode == 0, once_more.stderr
    record = json.loads(once_more.stdout)
    assert (record["rows"], record["rows_of_earlier_tries"], record["bad_rows"]) == (ROWS, ROWS, 5)
    assert read_lines(sorted((out / "bad").iterdir())) == bad


@pytest.mark.slow  # Two commands that start Ray; test_streams.py has the sources alone.
def test_a_quote_that_is_never_closed_is_one_line_wherever_it_stands(
    runs: Any, bundle: Bundle, tmp_path: Path
) -> None:
    table, out = tmp_path / "in.csv", tmp_path / "out"
    table.write_text("text\n" + "a row\n" * 3 + '"no end\n' + "a row\n" * 3)
    done = runs.call("predict", str(bundle.folder), str(table), str(out), "--workers", "1")
    assert done.returncode == 2
    # Ray's own word on the level it logs at may stand before it.
    assert done.stderr.splitlines()[-1] == (
        f"equipoise: {table}:5: is not valid CSV: unexpected end of data; check its double quotes"
    )


@pytest.mark.slow  # Two more.
def test_what_is_reserved_is_billed_on_the_node_that_is_named(
    runs: Any, bundle: Bundle, intent_test_csv: Path, tmp_path: Path
) -> None:
    out, node = tmp_path / "out", "aws/m7i.4xlarge"
    done = runs.call(
        "predict", str(bundle.folder), str(intent_test_csv), str(out), "--workers", "1", "--node", node
    )
    assert done.returncode == 0, done.stderr
    lines = read_lines(sorted((out / "ledger").rglob("*.jsonl")))
    assert {line["resource"] for line in lines if line["component"] != "storage"} == {node}
    [work] = [line for line in lines if line["component"] == "inference"]
    start, end = (datetime.fromisoformat(work[f"period_{edge}"]) for edge in ("start", "end"))
    # One process of one core, whatever the machine has.
    assert work["requested"] == pytest.approx((end - start).total_seconds(), rel=0.01)
    reconciled = runs.call("ledger", "reconcile", str(out))
    assert reconciled.returncode == 0, reconciled.stdout + reconciled.stderr


def test_a_folder_of_other_predictions_is_refused(
    runs: Any, bundle: Bundle, table: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "job.json").write_text(
        json.dumps({"model": bundle.manifest.digest, "data": "other.csv", "columns": ["text", 262144]})
    )
    done = runs.call("predict", str(bundle.folder), str(table), str(out))
    assert done.returncode == 2
    assert done.stderr.strip() == (
        f"equipoise: {out}: holds predictions of another data (got 'other.csv'); "
        "give another OUT, or remove this one"
    )


@pytest.mark.parametrize(
    ("model", "data", "fault"),
    [
        ("absent", "in.csv", "holds neither a bundle nor a trained model"),
        (None, "absent.csv", "no such file"),
        (None, "columns.csv", "has no column 'text'"),
        (None, "columns.jsonl", "no row of it can be used; the first, "),
    ],
)
def test_what_cannot_be_predicted_at_all_is_one_line(
    runs: Any, bundle: Bundle, tmp_path: Path, model: str | None, data: str, fault: str
) -> None:
    (tmp_path / "in.csv").write_text("text\na\n")
    (tmp_path / "columns.csv").write_text("body\na\n")
    (tmp_path / "columns.jsonl").write_text('{"body": "a"}\n{"body": "b"}\n')
    done = runs.call("predict", model or str(bundle.folder), str(tmp_path / data), str(tmp_path / "out"))
    assert done.returncode == 2
    assert fault in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_evaluate_writes_what_it_prints(
    runs: Any, bundle: Bundle, intent_test_csv: Path, tmp_path: Path
) -> None:
    out = tmp_path / "evaluation"
    arguments = ("evaluate", str(bundle.folder), "--data", str(intent_test_csv), "--out", str(out))
    done = runs.call(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert json.loads((out / "evaluation.json").read_text()) == record
    assert record["rows"] == 60
    assert set(record["classes"]["classes"]) <= {"billing", "delivery", "travel"}
    assert record["quality"]["robustness"]["n"] == 60
    lines = read_lines(sorted((out / "ledger").rglob("*.jsonl")))
    assert sum(line["billed_cost_usd"] for line in lines if line["component"] == "evaluation") > 0
    reconciled = runs.call("ledger", "reconcile", str(out))
    assert reconciled.returncode == 0, reconciled.stdout + reconciled.stderr
    told = runs.call(*arguments)
    assert told.returncode == 0
    assert "macro average" in told.stdout
    assert "confused most" in told.stdout


def test_labels_that_the_model_does_not_know_are_named(runs: Any, bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("text,label\na,billing\nb,gardening\n")
    done = runs.call("evaluate", str(bundle.folder), "--data", str(tmp_path / "in.csv"))
    assert done.returncode == 2
    assert "1 of its labels are unknown to the model: 'gardening'" in done.stderr
