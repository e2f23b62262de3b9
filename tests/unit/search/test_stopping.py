from __future__ import annotations

import pickle
from typing import Any

import pytest

# Warnings of other packages about each other, at their own import.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


def test_a_fault_stops_everything_and_nothing_else_does() -> None:
    from equipoise.search.stopping import Fault

    stopper = Fault()
    for result in ({"recipe_hash": "a"}, {"dropped": "too slow"}):
        assert stopper("trial", result) is False
        assert not stopper.stop_all()
    stopper("trial", {"fault": '["DataError", "wrong", "", ""]'})
    assert stopper.stop_all()
    stopper("other", {"recipe_hash": "b"})
    assert stopper.stop_all()


def test_a_watcher_tells_of_each_once_and_is_written_to_disk_without_its_display() -> None:
    from equipoise.search.stopping import Watch

    told: list[str] = []
    dropped: list[str] = []
    watch = Watch(told.append, dropped.append)
    results: tuple[dict[str, Any], ...] = (
        {"recipe_hash": "a"},
        {"fault": "x"},
        {"dropped": "too slow"},
        {"recipe_hash": "b"},
        {"dropped": "too slow"},
        {"recipe_hash": "a"},
    )
    for result in results:
        watch.on_trial_result(0, [], None, result)
    assert told == ["a", "b"]
    assert dropped == ["too slow"]
    assert pickle.loads(pickle.dumps(watch)).__dict__ == {}  # noqa: S301 - its own pickle
