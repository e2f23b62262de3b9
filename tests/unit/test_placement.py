from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from equipoise.errors import ConfigError
from equipoise.placement import SERVING_LABEL, Placement, check_slot, find_placement
from equipoise.ray_runtime import MEASURED_SLOT

KEY, _, VALUE = SERVING_LABEL.partition("=")


def node(cpus: float, *, slot: bool = True, serving: bool = False, gpus: float = 0, **labels: str) -> Any:
    resources = {"CPU": cpus, "GPU": gpus, MEASURED_SLOT: float(slot)}
    return {
        "NodeID": f"{cpus:08.0f}ffff",
        "Alive": True,
        "Resources": {name: amount for name, amount in resources.items() if amount},
        "Labels": labels | ({KEY: VALUE} if serving else {}),
    }


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Any:
    """`place(node(2), ...)`: clusters of other shapes cannot be had here: what Ray says of its nodes
    stands in."""

    def call(*nodes: Any, label: str | None = None) -> Placement:
        gone = {"NodeID": "gone", "Alive": False, "Resources": {"CPU": 512.0}, "Labels": {KEY: VALUE}}
        monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(nodes=lambda: [*nodes, gone]))
        monkeypatch.setenv("RAY_ADDRESS", "somewhere")
        return find_placement(label)

    return call


def test_on_one_machine_everything_runs_there_one_at_a_time(place: Any) -> None:
    found = place(node(8))
    assert (found.measuring, found.training, found.apart) == ({}, {}, False)
    assert found.measuring_cores == found.training_cores == 8
    assert found.groups_at_once(2, {"CPU": 1}) == 1
    task = found.measuring_task(timed=True)
    assert (task["num_cpus"], task["resources"]) == (8, {MEASURED_SLOT: 1})
    assert "label_selector" not in task


def test_labelled_nodes_measure_and_the_others_train(place: Any) -> None:
    found = place(
        node(0, slot=False), node(4, slot=False), node(16, slot=False, gpus=2), node(8, serving=True)
    )
    assert found.measuring == {KEY: VALUE}
    assert found.training == {KEY: f"!{VALUE}"}
    assert (found.measuring_cores, found.training_cores, found.measuring_nodes) == (8, 16, 1)
    assert found.measuring_task(timed=False)["label_selector"] == {KEY: VALUE}
    assert found.training_task()["label_selector"] == {KEY: f"!{VALUE}"}
    # A group of four is on a node of its own; only one node has GPUs.
    assert found.groups_at_once(4, {"CPU": 1}) == 2
    assert found.groups_at_once(2, {"CPU": 1, "GPU": 1}) == 1
    assert found.groups_at_once(16, {"CPU": 1}) == 1


def test_of_labelled_nodes_that_differ_the_largest_measure(place: Any) -> None:
    found = place(node(2), node(4, serving=True), node(8, serving=True), node(8, serving=True))
    assert (found.measuring_cores, found.measuring_nodes) == (8, 2)


def test_where_all_nodes_are_labelled_they_train_too(place: Any) -> None:
    found = place(node(0, slot=False), node(4, serving=True), node(4, serving=True))
    assert found.measuring == {KEY: VALUE}
    assert (found.training, found.apart, len(found.training_nodes)) == ({}, False, 2)


def test_another_label_can_be_named_and_has_to_be_there(place: Any) -> None:
    cluster = (node(4), node(8, serving=True), node(6, kind="edge"))
    assert place(*cluster, label="kind=edge").measuring_cores == 6
    with pytest.raises(ConfigError, match="no node of the cluster has this label") as caught:
        place(*cluster, label="kind=server")
    assert caught.value.where == "search.serving_nodes"
    assert "--labels=kind=server" in caught.value.remedy


def test_a_labelled_node_without_a_slot_is_refused(place: Any) -> None:
    with pytest.raises(ConfigError, match="could never be timed") as caught:
        place(node(4), node(8, slot=False, serving=True))
    assert MEASURED_SLOT in caught.value.remedy


def test_a_cluster_on_which_nothing_could_be_timed_is_refused(place: Any) -> None:
    place(node(4, slot=False), node(8))
    check_slot()
    place(node(4, slot=False), node(8, slot=False))
    with pytest.raises(ConfigError, match="none of the cluster's 2 nodes offers") as caught:
        check_slot()
    assert (caught.value.where, caught.value.value) == ("RAY_ADDRESS", "somewhere")
    assert MEASURED_SLOT in caught.value.remedy
