from __future__ import annotations

import pickle
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from equipoise.config.search import SearchConfig
from equipoise.runs import Candidate, RunFolder
from equipoise.search.limits import Limits

# Warnings of other packages about each other, at their own import.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.fixture
def run(tmp_path: Path, build_candidate: Callable[..., Candidate]) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    for name in ("a", "b"):
        record = build_candidate(recipe_hash=name).model_dump(mode="json")
        folder.put(record, "candidates", f"{name}.json")
    return folder


def test_a_search_stops_at_the_wanted_number_of_different_candidates(run: RunFolder) -> None:
    from equipoise.search.stopping import Enough

    enough = Enough(Limits(SearchConfig(), wanted=2, anchors=0, deadline_s=None), run.location)
    for name, stops in (("a", False), ("a", False), ("b", True)):
        assert enough("trial", {"recipe_hash": name}) is False
        assert enough.stop_all() is stops


def test_a_search_stops_at_a_fault_and_does_not_count_it(run: RunFolder) -> None:
    from equipoise.search.stopping import Enough

    enough = Enough(Limits(SearchConfig(), wanted=1, anchors=0, deadline_s=None), run.location)
    enough("trial", {"fault": '["DataError", "wrong", "", ""]', "recipe_hash": "a"})
    assert enough.measured == {}
    assert enough.stop_all()


def test_what_was_dropped_is_no_candidate_but_takes_time_too(run: RunFolder) -> None:
    from equipoise.search.stopping import Enough

    late = Limits(SearchConfig(), wanted=2, anchors=0, deadline_s=time.monotonic() - 1)
    for limits, stops in ((Limits(SearchConfig(), 2, 0, None), False), (late, True)):
        enough = Enough(limits, run.location)
        enough("trial", {"recipe_hash": "a"})
        enough.reached = False
        enough("trial", {"dropped": "too slow"})
        assert list(enough.measured) == ["a"]
        assert enough.stop_all() is stops


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
