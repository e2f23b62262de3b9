from __future__ import annotations

import pickle
import time
from typing import Any

import pytest

# Warnings of other packages about each other, at their own import.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


def test_a_search_stops_at_the_wanted_number_of_different_candidates() -> None:
    from equipoise.search.stopping import Enough

    enough = Enough(wanted=2, deadline_s=None)
    for name, stops in (("a", False), ("a", False), ("b", True)):
        assert enough("trial", {"recipe_hash": name}) is False
        assert enough.stop_all() is stops


def test_a_search_stops_at_its_deadline() -> None:
    from equipoise.search.stopping import Enough

    assert not Enough(wanted=9, deadline_s=time.monotonic() + 60).stop_all()
    assert Enough(wanted=9, deadline_s=time.monotonic() - 1).stop_all()


def test_a_search_stops_at_a_fault_and_does_not_count_it() -> None:
    from equipoise.search.stopping import Enough

    enough = Enough(wanted=1, deadline_s=None)
    enough("trial", {"fault": '["DataError", "wrong", "", ""]', "recipe_hash": "a"})
    assert enough.seen == set()
    assert enough.stop_all()


def test_a_watcher_tells_of_candidates_and_is_written_to_disk_without_its_display() -> None:
    from equipoise.search.stopping import Watch

    told: list[str] = []
    watch = Watch(told.append)
    results: tuple[dict[str, Any], ...] = ({"recipe_hash": "a"}, {"fault": "x"}, {"recipe_hash": "b"})
    for result in results:
        watch.on_trial_result(0, [], None, result)
    assert told == ["a", "b"]
    assert pickle.loads(pickle.dumps(watch)).__dict__ == {}  # noqa: S301 - its own pickle
