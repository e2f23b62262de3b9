"""An estimate where nothing was seen yet: steps of every stage, really taken."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from equipoise.runs import RunFolder

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def estimated(runs: Any, tiny_run: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    """What `equipoise estimate` says of the tiny run, on a machine that saw none."""
    file = runs.write("run.yaml", tiny_run())
    found = runs.call("estimate", "-f", str(file), "--out", "first", "--json", timeout_s=800)
    assert found.returncode == 0, found.stderr
    assert "timing a few steps" in found.stderr
    record: dict[str, Any] = json.loads(found.stdout)
    return record


def test_every_stage_is_estimated(estimated: dict[str, Any]) -> None:
    assert (estimated["basis"], estimated["runs"]) == ("timed steps", 0)
    size, seconds = estimated["size"], estimated["seconds"]
    assert (size["candidates"], size["student_depths"]) == (5, [1])
    assert all(0 < span["low"] < span["value"] < span["high"] for span in seconds.values())
    # A tiny model's trainings are all start; the teacher and its only student start alike.
    assert seconds["students"]["value"] == pytest.approx(seconds["teacher"]["value"], rel=0.8)
    assert 0 < estimated["search_usd"]["value"] < estimated["node_usd"]["value"]


def test_nothing_is_left_and_nothing_was_written(estimated: dict[str, Any], runs: Any) -> None:
    assert runs.wait_until_none_is_left() == []
    assert not RunFolder(runs.folder / "first").has("config.json")
