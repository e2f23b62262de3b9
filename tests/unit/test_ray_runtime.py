from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from equipoise import hardware
from equipoise.errors import ServiceError
from equipoise.ray_runtime import start_ray, whole_node_cores


@pytest.mark.parametrize(
    ("here", "offered", "taken"),
    [(2, [2], 2), (64, [4, 8], 8), (2, [16], 2), (8, [0, 4], 4), (8, [0], 1), (4, [], 4)],
)
def test_a_task_takes_no_more_cores_than_some_node_offers(
    here: int, offered: list[int], taken: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Clusters of other sizes than this machine's cannot be had here: what Ray says of its nodes stands in.
    nodes: list[dict[str, Any]] = [{"Alive": True, "Resources": {"CPU": float(cpus)}} for cpus in offered]
    nodes.append({"Alive": False, "Resources": {"CPU": 512.0}})
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(nodes=lambda: nodes))
    monkeypatch.setattr(hardware, "usable_cores", lambda: list(range(here)))
    assert whole_node_cores() == taken


@pytest.mark.parametrize(
    ("raised", "kind"),
    [
        (Exception("The current node timed out during startup."), ServiceError),
        (ConnectionError("refused"), ServiceError),
        (TypeError("a defect"), TypeError),
    ],
)
def test_a_node_that_does_not_come_up_in_time_may_be_tried_again(
    raised: Exception, kind: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    # It takes a machine under heavy load: what Ray raises on one stands in.
    import ray

    def init(**options: Any) -> None:
        raise raised

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(kind, match=str(raised)):
        start_ray()


def test_programs_of_the_environment_come_before_the_systems() -> None:
    """DeepSpeed's op is compiled by the environment's ninja at install; another would compile it anew."""
    found = subprocess.run(
        [
            sys.executable,
            "-c",
            "import os, equipoise.ray_runtime as r; r.prepare_environment(); print(os.environ['PATH'])",
        ],
        env={**os.environ, "PATH": f"/usr/bin{os.pathsep}/bin"},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert found.stdout.strip().split(os.pathsep) == [str(Path(sys.executable).parent), "/usr/bin", "/bin"]
