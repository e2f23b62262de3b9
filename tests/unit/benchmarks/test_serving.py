"""The serving benchmark's arithmetic, and (slow) each of its legs run to its end on a tiny model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from benchmarks.serving import LEGS, figures, main, sample_rows
from benchmarks.serving_load import LEG_S, split_replica
from benchmarks.serving_rows import BenchmarkRows, named

from equipoise.bundle import write_bundle
from equipoise.compression.export import export_model

LABELS = ("billing", "delivery", "travel")


def test_accuracy_is_of_the_same_rows_and_what_is_not_answered_is_wrong() -> None:
    rows = BenchmarkRows(["a", "b", "c", "d"], ["x", "y", "x", "y"])
    assert rows.accuracy(["x", "y", "y", ""]) == 0.5
    assert [named(label, LABELS) for label in ("LABEL_2", "travel", "LABEL_", "")] == [
        "travel",
        "travel",
        "LABEL_",
        "",
    ]


def test_a_replica_s_time_is_split_and_none_is_made_up() -> None:
    shares = {"tokenizer": 0.2, "engine": 0.7, "decoder": 0.1}
    cpu_ms = {"client": 0.1, "proxy": 0.2, "replica": 2.0, "ray": 0.0}
    found = split_replica(cpu_ms, 1.5, shares)
    assert found["replica"] == pytest.approx(0.5)
    assert found["engine"] == pytest.approx(1.05)
    assert sum(found.values()) == pytest.approx(sum(cpu_ms.values()))
    assert sum(split_replica(cpu_ms, 9.0, shares).values()) == pytest.approx(sum(cpu_ms.values()))


def test_the_figures_follow_from_the_legs() -> None:
    legs: dict[str, dict[str, Any]] = {name: {"rps": 10.0, "accuracy": 0.9} for name in LEGS}
    legs["equipoise"] |= {"rps": 600.0, "added_p50_ms": 1.0, "replica_mib": 300.0, "failures": 0}
    legs["engine"]["rps"], legs["echo"]["rps"] = 1000.0, 3000.0
    legs["equipoise"]["accuracy"] = 0.895
    found = {figure.name: figure.value for figure in figures(legs)}
    assert found["requests/s, share of 1/(1/echo + 1/engine)"] == pytest.approx(0.8)
    assert found["accuracy below the tutorial's on the same rows, points"] == pytest.approx(0.5)
    assert found["requests/s, over the tutorial deployment of the fp32 teacher"] == 60


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_classifier: Path, intent_test_csv: Path) -> Path:
    """What the benchmark reads of a finished run, of an untrained model."""
    from tokenizers import Tokenizer

    from equipoise.tasks.text_classification import TextClassification

    run = tmp_path_factory.mktemp("run")
    task = TextClassification(
        Tokenizer.from_file(str(tiny_classifier / "tokenizer.json")), LABELS, max_length=32
    )
    (run / "model").mkdir()
    export_model(
        tiny_classifier,
        run / "model",
        engine="openvino",
        precision="fp32",
        task=task,
        calibration=[],
        onnx_cache=run / "onnx",
    )
    write_bundle(
        run / "bundle",
        name="tiny",
        task=task,
        engine="openvino",
        precision="fp32",
        model_folder=run / "model",
        candidate={},
    )
    (run / "teacher").symlink_to(tiny_classifier)
    data = {"test": str(intent_test_csv), "text_column": "text", "label_column": "label"}
    (run / "config.json").write_text(json.dumps({"data": data}), encoding="utf-8")
    return run


def test_rows_are_drawn_from_the_whole_split_and_are_the_same_each_time(finished: Path) -> None:
    rows = sample_rows(finished, 12)
    assert rows == sample_rows(finished, 12)
    assert set(rows.labels) == set(LABELS)
    assert len(set(rows.texts)) == 12


@pytest.mark.slow
@pytest.mark.timeout(len(LEGS) * (LEG_S + 70))
def test_every_leg_runs_to_its_end_and_is_not_run_again(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    results = tmp_path / "results"
    monkeypatch.setattr("benchmarks.record.write_result.__defaults__", (results,))
    options = ["--run", str(finished), "--rows", "30", "--seconds", "2", "--legs", str(tmp_path / "legs")]
    main([*options, "--leg", "engine"])
    assert "missing still: tutorial, tuned, defaults, echo, equipoise" in capsys.readouterr().out
    main(options)
    assert "engine (" not in capsys.readouterr().out, "what is on record is not measured again"
    legs = {name: json.loads((tmp_path / "legs" / f"{name}.json").read_text())["leg"] for name in LEGS}
    assert all(leg["rps"] > 0 for leg in legs.values())
    accuracies = {legs[name]["accuracy"] for name in ("tutorial", "tuned", "defaults", "equipoise")}
    assert len(accuracies) == 1, "the same model answers the same rows"
    assert legs["equipoise"]["failures"] == 0
    assert set(legs["equipoise"]["cpu_ms"]) == {
        "client",
        "proxy",
        "replica",
        "ray",
        "tokenizer",
        "engine",
        "decoder",
    }
    assert json.loads((results / "serving.json").read_text())["figures"]
