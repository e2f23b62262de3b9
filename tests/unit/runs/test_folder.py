from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from equipoise.config import RunConfig
from equipoise.errors import InputError, RunFolderError
from equipoise.runs import Agreement, Candidate, CostTerms, Figure, Quality, Recipe, RunFolder, Speed


def figure(value: float) -> Figure:
    return Figure(value=value, low=value - 0.1, high=value + 0.1, n=100)


def candidate(recipe_hash: str, **changes: Any) -> Candidate:
    record = Candidate(
        recipe_hash=recipe_hash,
        recipe=Recipe(depth=2, layers=(0, 5), distilled=True, engine="openvino", precision="int8"),
        eligible=True,
        quality=Quality(
            metric_name="accuracy", metric=figure(0.9), macro_f1=figure(0.8), calibration_error=figure(0.1)
        ),
        speed=Speed(
            latency_p50_ms=figure(1.0),
            latency_p99_ms=figure(2.0),
            throughput_rps=figure(500.0),
            batch_size=32,
            threads=1,
        ),
        agreement=Agreement(
            max_logit_difference=0.1,
            changed_labels=0.0,
            neighbour_changes=0.0,
            max_neighbour_difference=0.0,
            rows=50,
        ),
        cost=CostTerms(
            rps=100,
            horizon_months=12,
            replicas=1,
            compute_training_usd=1,
            compute_search_usd=2,
            compute_serving_usd=3,
            storage_usd=4,
            data_usd=5,
            maintenance_usd=6,
            serving_usd_per_1k=0.1,
            total_usd_per_1k=0.2,
            serving_usd_month=10,
        ),
        bytes=1000,
        parameters=100,
        metric_drop=figure(0.01),
        hardware={"cpu": "x"},
        seed=13,
        revision="abc",
    )
    return record.model_copy(update=changes)


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "run")


def test_a_new_folder_is_claimed_once(folder: RunFolder, run_config: Callable[..., RunConfig]) -> None:
    config = run_config().model_dump(mode="json")
    assert folder.claim(config) is False
    assert folder.claim(config) is True
    assert RunConfig.model_validate(folder.read("config.json")) == run_config()


def test_a_tuple_in_the_config_is_no_other_config(folder: RunFolder) -> None:
    folder.claim({"depths": (1, 2)})
    assert folder.claim({"depths": [1, 2]}) is True


def test_a_folder_of_another_config_is_refused(
    folder: RunFolder, run_config: Callable[..., RunConfig]
) -> None:
    folder.claim(run_config().model_dump(mode="json"))
    other = run_config(data={"validation_share": 0.2}).model_dump(mode="json")
    with pytest.raises(
        RunFolderError, match=r"data\.validation_share differs; choose another folder"
    ) as caught:
        folder.claim(other)
    assert folder.location in str(caught.value)
    assert folder.read("config.json") == run_config().model_dump(mode="json")


def test_single_keys_may_be_changeable(folder: RunFolder) -> None:
    folder.claim({"search": {"trials": 4, "depths": [1]}})
    assert folder.claim({"search": {"trials": 8, "depths": [1]}}, changeable=["search.trials"]) is True
    assert folder.read("config.json")["search"]["trials"] == 8
    with pytest.raises(RunFolderError, match=r"search\.depths differs"):
        folder.claim({"search": {"trials": 8, "depths": [2]}}, changeable=["search.trials"])


def test_a_record_is_put_whole(folder: RunFolder, tmp_path: Path) -> None:
    folder.put({"a": 1}, "choice.json")
    folder.put({"a": 2}, "choice.json")
    assert folder.read("choice.json") == {"a": 2}
    assert folder.has("choice.json")
    assert not folder.has("test.json")
    assert [file.name for file in (tmp_path / "run").iterdir()] == ["choice.json"]


def test_a_record_that_is_not_json_leaves_the_old_one(folder: RunFolder) -> None:
    folder.put({"a": 1}, "choice.json")
    with pytest.raises(TypeError):
        folder.put({"a": object()}, "choice.json")
    assert folder.read("choice.json") == {"a": 1}


def test_a_record_that_is_not_there_is_named(folder: RunFolder) -> None:
    with pytest.raises(RunFolderError, match=r"has no ledger/a/0\.json; is this a run folder"):
        folder.read("ledger", "a", "0.json")


def test_candidates_are_read_back_by_hash(folder: RunFolder) -> None:
    assert folder.candidates() == []
    for name in ("bb", "aa"):
        folder.put(candidate(name).model_dump(mode="json"), "candidates", f"{name}.json")
    stray = Path(folder.path("candidates", ".tmp-left-by-a-killed-writer"))
    stray.write_bytes(b"{")
    assert folder.candidates() == [candidate("aa"), candidate("bb")]


def test_a_candidate_of_a_newer_version_is_read(folder: RunFolder) -> None:
    folder.put({**candidate("aa").model_dump(mode="json"), "later": 1}, "candidates", "aa.json")
    assert folder.candidates() == [candidate("aa")]


def test_a_damaged_candidate_is_bad_input(folder: RunFolder) -> None:
    record = candidate("aa").model_dump(mode="json")
    del record["speed"]
    folder.put(record, "candidates", "aa.json")
    with pytest.raises(RunFolderError, match=r"aa\.json: is not a candidate: speed: Field required"):
        folder.candidates()
    Path(folder.path("candidates", "aa.json")).write_text(json.dumps(record)[:50])
    with pytest.raises(InputError, match=r"aa\.json: not valid JSON"):
        folder.candidates()


def test_models_need_a_local_folder(tmp_path: Path) -> None:
    assert RunFolder(tmp_path).local("teacher") == tmp_path / "teacher"
    assert RunFolder("s3://bucket/run/").path("a", "b") == "s3://bucket/run/a/b"
    with pytest.raises(RunFolderError, match="local run folder"):
        RunFolder("s3://bucket/run").local("teacher")


def test_records_are_frozen_and_add_up() -> None:
    record = candidate("aa")
    assert record.cost.compute_usd == 6
    assert record.cost.total_usd == 21
    assert record.recipe.label == "2 layers (0,5) int8 openvino"
    with pytest.raises(ValueError, match="frozen"):
        record.seed = 1  # type: ignore[misc]
    assert Candidate.model_validate_json(record.model_dump_json()) == record
