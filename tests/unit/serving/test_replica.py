"""Which cores a replica gets."""

from __future__ import annotations

import pytest

from equipoise_serving.replica import cores_of


@pytest.mark.parametrize(
    ("rank", "count", "usable", "cores"),
    [
        (0, 1, [0, 1], [0]),
        (1, 1, [0, 1], [1]),
        (2, 1, [0, 1], [0]),
        (1, 2, [2, 3, 6, 7], [6, 7]),
        (0, 4, [0, 1], [0, 1]),
        (3, 2, [0, 1, 2], [0, 1]),
    ],
)
def test_core_groups_are_dealt_out_in_turn(
    rank: int, count: int, usable: list[int], cores: list[int]
) -> None:
    assert cores_of(rank, count, usable) == cores
