from __future__ import annotations

import pathlib
from collections.abc import Callable

import pytest

from equipoise.config import RunConfig, validate_config
from equipoise.costs.ledger_writer import LedgerWriter
from equipoise.runs import RunFolder


class Clock:
    """Seconds since the epoch that tests move by hand."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def run(tmp_path: pathlib.Path) -> RunFolder:
    return RunFolder(tmp_path / "run")


@pytest.fixture
def config() -> RunConfig:
    values = {"name": "tiny", "data": {"train": "a.csv", "test": "b.csv"}, "model": {"teacher": "sample://x"}}
    return validate_config(RunConfig, values, where="test")


@pytest.fixture
def writer(run: RunFolder, config: RunConfig, clock: Clock) -> Callable[[str], LedgerWriter]:
    """`writer(name)`: a ledger writer of the run at the test's clock."""
    return lambda name: LedgerWriter(run, config, name, clock=clock)
