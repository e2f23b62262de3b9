from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from equipoise.cli.job_options import DEFAULT_NODE
from equipoise.config.cost import CostConfig

if TYPE_CHECKING:
    import subprocess


def test_the_default_node_is_that_of_a_run() -> None:
    assert CostConfig().node == DEFAULT_NODE


@pytest.mark.parametrize(
    "command", [["evaluate", "absent", "--data", "in.csv"], ["predict", "absent", "in.csv", "out"]]
)
def test_a_node_without_a_price_is_one_line(
    equipoise: Callable[..., subprocess.CompletedProcess[str]], command: list[str]
) -> None:
    assert DEFAULT_NODE in equipoise(command[0], "--help").stdout
    found = equipoise(*command, "--node", "aws/c7i.lrage")
    assert (found.returncode, found.stdout) == (2, "")
    assert found.stderr == (
        "equipoise: --node: node is not in the price book (got 'aws/c7i.lrage'); "
        "did you mean 'aws/c7i.large'?\n"
    )
