from __future__ import annotations

from collections.abc import Callable

import pytest

from equipoise.config import RunConfig
from equipoise.config.search import SearchConfig
from equipoise.placement import Node, Placement
from equipoise.search.study import trials_at_once


def cluster(training: int, measuring: int, *, apart: bool) -> Placement:
    nodes = tuple(Node(str(place), {"CPU": 4.0}, {}) for place in range(training))
    label = {"kind": "!serving"} if apart else {}
    return Placement({"kind": "serving"} if apart else {}, label, 4, 4, measuring, nodes)


@pytest.mark.parametrize(
    ("placement", "wanted", "found"),
    [
        (cluster(1, 1, apart=False), None, 1),
        (cluster(1, 1, apart=False), 8, 1),
        (cluster(3, 3, apart=False), None, 3),
        (cluster(3, 3, apart=False), 2, 2),
        (cluster(2, 1, apart=True), None, 3),
        (cluster(2, 1, apart=True), 1, 1),
    ],
)
def test_as_many_trials_run_as_there_are_machines(
    placement: Placement, wanted: int | None, found: int, run_config: Callable[..., RunConfig]
) -> None:
    config = run_config(training={"workers": 2}, search={"concurrent_trials": wanted})
    assert trials_at_once(config, placement) == found


def test_a_group_that_takes_two_nodes_leaves_room_for_half_as_many(
    run_config: Callable[..., RunConfig],
) -> None:
    config = run_config(training={"workers": 8})
    assert trials_at_once(config, cluster(4, 4, apart=False)) == 2


@pytest.mark.parametrize(
    ("trials", "short", "share"), [(31, "auto", 1), (32, "auto", 0.25), (4, 0.5, 0.5), (64, 1.0, 1)]
)
def test_short_recovery_is_left_to_large_searches(trials: int, short: float | str, share: float) -> None:
    search = SearchConfig.model_validate({"trials": trials, "short_recovery": short})
    assert search.first_recovery == share
