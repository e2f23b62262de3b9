"""A replica's lines: at whose prices, of what share of a node, and in which run's ledger."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from equipoise.config import RunConfig
from equipoise.costs.ledger import read_ledger
from equipoise.errors import ConfigError, RunFolderError
from equipoise.runs import RunFolder
from equipoise_serving.replica_ledger import ReplicaClock, open_replica_ledger


@pytest.fixture
def make_run(tmp_path: Path, run_config: Callable[..., RunConfig]) -> Callable[..., RunFolder]:
    """`make_run(node=..., spot=...)`: a run folder with that `cost` in its config."""

    def make(**cost: Any) -> RunFolder:
        run = RunFolder(tmp_path / "run")
        run.put(run_config(cost=cost).model_dump(mode="json"), "config.json")
        return run

    return make


def test_a_replica_is_billed_at_what_is_paid_and_listed_at_the_price_on_demand(
    make_run: Callable[..., RunFolder],
) -> None:
    run = make_run(node="aws/c7i.large", spot=True)
    ledger = open_replica_ledger(run.location)
    clock = ReplicaClock(ledger, "tiny", cores=1, count_answered=iter([7, 7]).__next__)
    clock.stop()
    clock.stop()
    [line] = read_ledger(run)

    assert ledger.usd_per_hour is not None
    assert line.effective_unit_price == pytest.approx(ledger.usd_per_hour / 2 / 3600)
    assert line.effective_unit_price == pytest.approx(ledger.usd_per_core_second)
    assert line.effective_unit_price < line.list_unit_price == pytest.approx(0.08925 / 2 / 3600)
    assert (line.component, line.requests, line.detail) == ("serving", 7, "tiny")


def test_a_replica_with_a_gpu_takes_its_share_of_the_nodes(make_run: Callable[..., RunFolder]) -> None:
    run = make_run(node="aws/g6.xlarge", replica_gpus=1)
    clock = ReplicaClock(open_replica_ledger(run.location), "tiny", cores=1, count_answered=lambda: 0)
    clock.stop()
    [line] = read_ledger(run)

    seconds = line.requested / 4 if line.requested else 0.0
    assert line.resource == "aws/g6.xlarge"
    assert seconds > 0, "the node's one GPU is all of its four cores"
    assert line.billed_cost_usd == pytest.approx(seconds * 0.8048 / 3600)


def test_a_folder_without_a_run_and_prices_that_are_elsewhere_are_refused(
    tmp_path: Path, make_run: Callable[..., RunFolder]
) -> None:
    with pytest.raises(RunFolderError, match="is no run folder"):
        open_replica_ledger(str(tmp_path))
    run = make_run(prices="/elsewhere/prices.yaml")
    with pytest.raises(ConfigError, match="no such price book"):
        open_replica_ledger(run.location)
