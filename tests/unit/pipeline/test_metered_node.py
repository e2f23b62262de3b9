from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from equipoise import hardware
from equipoise.config import RunConfig
from equipoise.costs.ledger import read_ledger
from equipoise.costs.ledger_lines import node_line
from equipoise.costs.ledger_reconcile import reconcile
from equipoise.costs.ledger_writer import LedgerWriter
from equipoise.pipeline.metered_node import PIPELINE, _machines, metered_node
from equipoise.runs import RunFolder


def test_what_a_killed_try_was_at_is_billed_before_the_next_one_adds_up(
    tmp_path: Path, run_config: Callable[..., RunConfig]
) -> None:
    config, run = run_config(), RunFolder(tmp_path / "run")
    start, now = time.time() - 300, [time.time() - 250]
    with LedgerWriter(run, config, "node") as killed:
        options: dict[str, Any] = {"run_id": killed.run_id, "node": killed.node, "book": killed.book}
        killed.add(
            node_line(component=PIPELINE, start=start, stop=start + 200, resource_id=killed.name, **options)
        )
    # Entered and never left: what SIGKILL leaves behind.
    block = LedgerWriter(run, config, "trial", clock=lambda: now[0]).meter("search", cores=2, detail="judge")
    block.__enter__()

    with metered_node(run, config, config.cost.node, PIPELINE):
        (found,) = (line for line in read_ledger(run) if line.component == "search")
        assert (found.charge_class, found.detail) == ("overhead", "judge (killed)")
        assert found.quantity == pytest.approx(2 * 150, rel=1e-3)
        assert killed.name in {line.resource_id for line in read_ledger(run) if line.charge_class == "idle"}
    assert reconcile(run).reconciles


def test_a_ray_that_is_only_half_imported_is_no_cluster_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a job RAY_ADDRESS is set from the start, and the clock may tick while the pipeline imports Ray."""
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    monkeypatch.setitem(sys.modules, "ray", ModuleType("ray"))
    assert _machines() == {"": float(len(hardware.usable_cores()))}
