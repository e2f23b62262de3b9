"""A search over labelled raylets, all of which are killed under it, driver included; then it is run again."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from equipoise.costs.ledger import read_ledger
from equipoise.costs.ledger_reconcile import reconcile
from equipoise.placement import SERVING_LABEL
from equipoise.ray_runtime import MEASURED_SLOT, free_port, prepare_environment
from equipoise.runs import Candidate, RunFolder

# The whole story is in the setup of the first test: minutes, with four raylets on one machine.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]

DRIVER = Path(__file__).with_name("search_driver.py")
RECIPES = 9
"""Of three structures (the teacher's two layers, either of them) on three runtimes."""
END_S = 900
ATTEMPTS = 4


class Raylets:
    """A head without CPUs, two nodes that train and one that is serving hardware, of one CPU each."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        self.cluster = Cluster()
        self._add(num_cpus=0, include_dashboard=False)
        for _ in range(2):
            # They offer the slot too: what keeps timings off them is the label.
            self._add(num_cpus=1, resources={MEASURED_SLOT: 1})
        key, _, value = SERVING_LABEL.partition("=")
        serving = self._add(num_cpus=1, resources={MEASURED_SLOT: 1}, labels={key: value})
        self.serving = str(serving.node_id)[:8]

    def _add(self, **options: Any) -> Any:
        # A raylet gives up on its agent after 15 seconds, which is little on a busy machine.
        for left in reversed(range(ATTEMPTS)):
            try:
                return self.cluster.add_node(**options, dashboard_agent_listen_port=free_port())
            except Exception:
                if not left:
                    raise
                if self.cluster.head_node is None:
                    kill(self.processes())
        raise AssertionError("unreachable")

    @property
    def address(self) -> str:
        return str(self.cluster.address)

    def processes(self) -> list[psutil.Process]:
        """GCS, raylets, agents and workers: everything that this process started."""
        return psutil.Process().children(recursive=True)


@dataclass
class Story:
    """What was seen of one run folder: when everything was killed, and at the end."""

    folder: Path
    serving: set[str] = field(default_factory=set)
    killed: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    under_way: int = 0
    tries: dict[str, tuple[int, str]] = field(default_factory=dict)

    @property
    def run(self) -> RunFolder:
        return RunFolder(self.folder)

    def records(self) -> dict[str, tuple[int, bytes]]:
        found = [
            *self.folder.glob("candidates/*.json"),
            *self.folder.glob("students/*/trained.json"),
            *self.folder.glob("teacher/trained.json"),
        ]
        return {str(p.relative_to(self.folder)): (p.stat().st_mtime_ns, p.read_bytes()) for p in found}


def start(raylets: Raylets, config: Path, folder: Path) -> subprocess.Popen[str]:
    with (folder.parent / "driver.log").open("a") as log:
        return subprocess.Popen(
            [sys.executable, str(DRIVER), str(config), str(folder)],
            stdout=log,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "RAY_ADDRESS": raylets.address, "OMP_NUM_THREADS": "1"},
        )


def kill_everything(raylets: Raylets, driver: subprocess.Popen[str]) -> None:
    """SIGKILL at once: nobody is left to clean up after another."""
    kill(raylets.processes())
    driver.wait(timeout=30)
    raylets.cluster.shutdown()


def kill(processes: list[psutil.Process]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(processes, timeout=30)


@pytest.fixture(scope="module")
def story(
    tmp_path_factory: pytest.TempPathFactory, runs: Any, tiny_run: Callable[..., dict[str, Any]]
) -> Iterator[Story]:
    """Killed with at least three candidates on record and others under way; then run to its end."""
    folder = tmp_path_factory.mktemp("search") / "run"
    found = Story(folder)
    config = runs.write(
        "cluster.yaml",
        tiny_run(
            training={"workers": 1},
            distillation={"epochs": 30},
            search={"trials": RECIPES, "layers": ["first", "last"], "sampler": "tpe"},
        ),
    )
    patch = pytest.MonkeyPatch()
    patch.setenv("RAY_raylet_start_wait_time_s", "60")
    prepare_environment()
    raylets = Raylets()
    try:
        found.serving.add(raylets.serving)
        driver = start(raylets, config, folder)
        deadline = time.monotonic() + END_S
        while len(list(folder.glob("candidates/*.json"))) < 3:
            assert driver.poll() is None, (folder.parent / "driver.log").read_text()[-3000:]
            assert time.monotonic() < deadline, "no three candidates"
            time.sleep(0.1)
        kill_everything(raylets, driver)
        found.killed = found.records()
        found.under_way = sum(
            not (writer / "closed.json").exists() for writer in folder.glob("ledger/trial-*")
        )
        raylets = Raylets()
        found.serving.add(raylets.serving)
        driver = start(raylets, config, folder)
        status = driver.wait(timeout=END_S)
        found.tries["again"] = status, (folder.parent / "driver.log").read_text()
        yield found
    finally:
        kill(raylets.processes())
        raylets.cluster.shutdown()
        patch.undo()


def candidates(story: Story) -> list[Candidate]:
    return story.run.candidates()


def test_it_ends_with_every_recipe_measured_once(story: Story) -> None:
    status, log = story.tries["again"]
    assert status == 0, log[-3000:]
    assert "ended: trials" in log
    assert len(candidates(story)) == RECIPES
    assert len({candidate.recipe for candidate in candidates(story)}) == RECIPES


def test_what_was_finished_when_everything_was_killed_is_neither_lost_nor_repeated(story: Story) -> None:
    assert sum(name.startswith("candidates/") for name in story.killed) >= 3
    assert story.under_way >= 1
    after = story.records()
    assert {name: after.get(name) for name in story.killed} == story.killed


def test_nothing_was_timed_or_judged_off_the_labelled_node(story: Story) -> None:
    for phase in ("quality", "speed"):
        nodes = {name for candidate in candidates(story) for name in candidate.nodes[phase]}
        assert nodes <= story.serving


def test_trials_trained_on_more_than_one_node_and_never_on_the_labelled_one(story: Story) -> None:
    nodes = {name for candidate in candidates(story) for name in candidate.nodes["train"]}
    assert len(nodes) >= 2
    assert not nodes & story.serving


def test_a_structure_is_trained_once_for_all_who_share_it(story: Story) -> None:
    lines = [line for line in read_ledger(story.run) if line.detail.startswith("distill ")]
    trained = Counter(line.detail for line in lines if line.charge_class == "workload")
    assert set(trained.values()) == {1}
    assert len(trained) == 2


def test_several_trials_at_once_are_not_billed_twice(story: Story) -> None:
    found = reconcile(story.run)
    assert found.faults == []
    assert found.mismatches == []
    assert sum(period.node_hours for period in found.periods) > 0
