from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from equipoise.training.batches import batches_from, count_steps, epoch_batches, padding_share, worker_share

LENGTHS = st.lists(st.integers(2, 128), min_size=1, max_size=300).map(
    lambda values: np.array(values, dtype=np.int64)
)
SEEDS = st.integers(0, 2**32 - 1)


@given(lengths=LENGTHS, batch_size=st.integers(1, 64), seed=SEEDS, epoch=st.integers(0, 9))
def test_every_row_stands_once_in_an_epoch(
    lengths: NDArray[np.int64], batch_size: int, seed: int, epoch: int
) -> None:
    batches = epoch_batches(lengths, batch_size, seed, epoch)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
    assert len(batches) == math.ceil(len(lengths) / batch_size) == count_steps(len(lengths), batch_size, 1)
    assert sum(len(batch) < batch_size for batch in batches) <= 1


@given(size=st.integers(1, 64), workers=st.integers(1, 9))
def test_shares_partition_a_batch(size: int, workers: int) -> None:
    batch = np.arange(100, 100 + size)
    shares = [worker_share(batch, rank, workers) for rank in range(workers)]
    weighted = [rows.tolist() for rows, weight in shares if weight > 0]
    assert sorted(row for rows in weighted for row in rows) == batch.tolist()
    # A worker takes part in every step, even where there is no row for it.
    assert all(len(rows) for rows, _ in shares)


@given(
    losses=st.lists(st.floats(0, 10), min_size=1, max_size=64),
    workers=st.integers(1, 9),
)
def test_the_mean_over_workers_is_the_mean_over_the_batch(losses: list[float], workers: int) -> None:
    values, batch = np.array(losses), np.arange(len(losses))
    shares = [worker_share(batch, rank, workers) for rank in range(workers)]
    over_workers = np.mean([values[rows].mean() * weight for rows, weight in shares])
    assert over_workers == pytest.approx(values.mean(), abs=1e-9)


@given(lengths=LENGTHS, batch_size=st.integers(1, 64), seed=SEEDS)
def test_the_same_arguments_give_the_same_batches(
    lengths: NDArray[np.int64], batch_size: int, seed: int
) -> None:
    first, again = (epoch_batches(lengths, batch_size, seed, 2) for _ in range(2))
    assert [batch.tolist() for batch in first] == [batch.tolist() for batch in again]


def test_epochs_and_seeds_shuffle_differently() -> None:
    lengths = np.full(200, 7, dtype=np.int64)
    orders = {
        tuple(np.concatenate(epoch_batches(lengths, 8, seed, epoch)).tolist())
        for seed in (1, 2)
        for epoch in (0, 1)
    }
    assert len(orders) == 4


def test_rows_of_like_length_stand_together() -> None:
    lengths = np.random.default_rng(1).integers(2, 128, 512)
    batches = epoch_batches(lengths, 32, seed=1, epoch=0)
    spread = np.mean([np.ptp(lengths[batch]) for batch in batches])
    assert spread < np.ptp(lengths) / 8


def test_batches_do_not_come_in_order_of_length() -> None:
    lengths = np.arange(256, dtype=np.int64)
    means = [lengths[batch].mean() for batch in epoch_batches(lengths, 16, seed=1, epoch=0)]
    assert means != sorted(means)


@pytest.mark.parametrize(
    ("rows", "batch_size", "epochs", "steps"),
    [(100, 10, 1, 10), (101, 10, 1, 11), (100, 10, 2.5, 25), (5, 10, 1, 1), (100, 10, 0.01, 1), (7, 3, 3, 9)],
)
def test_steps_of_a_training(rows: int, batch_size: int, epochs: float, steps: int) -> None:
    assert count_steps(rows, batch_size, epochs) == steps


@given(first=st.integers(0, 30), total=st.integers(1, 40))
def test_batches_from_a_step_are_the_rest_of_all(first: int, total: int) -> None:
    lengths = np.arange(2, 25, dtype=np.int64)
    every = [(step, batch.tolist()) for step, batch in batches_from(lengths, 4, 7, 0, total)]
    rest = [(step, batch.tolist()) for step, batch in batches_from(lengths, 4, 7, first, total)]
    assert [step for step, _ in every] == list(range(total))
    assert rest == every[first:]


def test_padding_is_what_rows_lack_to_their_batches_longest() -> None:
    lengths = np.array([2, 4, 3, 3], dtype=np.int64)
    assert padding_share(lengths, [np.array([0, 1]), np.array([2, 3])]) == pytest.approx(2 / 14)
