from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from equipoise.config import RunConfig
from equipoise.costs.ledger import read_ledger
from equipoise.costs.ledger_reconcile import reconcile
from equipoise.errors import ConfigError, RunFolderError
from equipoise.pipeline.display import Silent
from equipoise.pipeline.session import open_session
from equipoise.runs import RunFolder

Build = Callable[..., RunConfig]


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "run")


def test_a_session_binds_the_folder_and_meters_the_node(run: RunFolder, run_config: Build) -> None:
    config = run_config()
    with open_session(config, run, Silent()) as session:
        assert run.read("config.json") == config.model_dump(mode="json")
        assert session.root == Path(run.location)
        assert session.revision
        with session.ledger.meter("training", cores=session.cores):
            pass
    lines = read_ledger(run)
    by_class = {line.kind if line.kind == "node" else line.charge_class: line for line in lines}
    assert by_class.keys() == {"node", "workload", "idle"}
    node, usage = by_class["node"], by_class["workload"]
    assert node.period_start <= usage.period_start <= usage.period_end <= node.period_end


def test_one_session_at_a_time(run: RunFolder, run_config: Build) -> None:
    with open_session(run_config(), run, Silent()):
        with pytest.raises(RunFolderError, match="another process runs") as caught:
            open_session(run_config(), run, Silent()).__enter__()
        assert caught.value.where == run.location
    with open_session(run_config(), run, Silent()):
        pass


def test_a_folder_of_another_config_is_refused_and_left_alone(run: RunFolder, run_config: Build) -> None:
    with open_session(run_config(), run, Silent()):
        pass
    before = {path: path.read_bytes() for path in Path(run.location).rglob("*.json")}
    with pytest.raises(RunFolderError, match=r"training\.epochs differs"):
        open_session(run_config(training={"epochs": 9}), run, Silent()).__enter__()
    assert {path: path.read_bytes() for path in Path(run.location).rglob("*.json")} == before


def test_constraints_may_change_until_a_choice_meets_them(run: RunFolder, run_config: Build) -> None:
    for bound in (0.01, 0.02):
        with open_session(run_config(constraints={"max_drop": bound}), run, Silent()):
            assert run.read("config.json")["constraints"]["max_drop"] == bound
        run.put({"feasible": False, "reason": "", "teacher_hash": ""}, "choice.json")
    run.put({"feasible": True}, "choice.json")
    with pytest.raises(RunFolderError, match=r"constraints\.max_drop differs"):
        open_session(run_config(constraints={"max_drop": 0.03}), run, Silent()).__enter__()


def test_a_search_may_be_given_more_until_a_choice_is_made(run: RunFolder, run_config: Build) -> None:
    for limits in ({"max_usd": 0.1}, {"max_usd": 0.2, "trials": 20, "window": 4}):
        with open_session(run_config(search=limits), run, Silent()):
            assert run.read("config.json")["search"]["max_usd"] == limits["max_usd"]
    with pytest.raises(RunFolderError, match=r"search\.depths"):
        open_session(run_config(search={"depths": [1]}), run, Silent()).__enter__()
    run.put({"feasible": True}, "choice.json")
    with pytest.raises(RunFolderError, match=r"search\.max_usd differs"):
        open_session(run_config(search={"max_usd": 0.3}), run, Silent()).__enter__()


def test_the_port_may_change_until_it_was_served(run: RunFolder, run_config: Build) -> None:
    for port in (8101, 8102):
        with open_session(run_config(serving={"port": port}), run, Silent()):
            pass
    run.put({}, "served.json")
    with pytest.raises(RunFolderError, match=r"serving\.port differs"):
        open_session(run_config(serving={"port": 8103}), run, Silent()).__enter__()


def test_what_a_killed_try_left_half_written_is_removed(run: RunFolder, run_config: Build) -> None:
    whole, half = (
        Path(run.location, "models", "abc", "model.onnx"),
        Path(run.location, "models", ".tmp-abc-1", "x"),
    )
    stray = Path(run.location, "candidates", ".tmp-1")
    for path in (whole, half, stray):
        path.parent.mkdir(parents=True)
        path.write_text("", encoding="utf-8")
    with open_session(run_config(), run, Silent()):
        assert whole.exists()
        assert not half.parent.exists()
        assert not stray.exists()


def test_a_session_that_fails_lets_go_of_the_folder(run: RunFolder, run_config: Build) -> None:
    with pytest.raises(ConfigError), open_session(run_config(), run, Silent()):
        raise ConfigError("wrong")
    with open_session(run_config(), run, Silent()):
        pass
    lines = read_ledger(run)
    assert sum(line.kind == "node" for line in lines) == 2
    assert {line.charge_class for line in lines if line.kind == "usage"} == {"idle"}
    assert reconcile(run).reconciles
