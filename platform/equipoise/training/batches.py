"""Batches of like length, shuffled deterministically, shared out between workers."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

_POOL_BATCHES = 32


def count_steps(rows: int, batch_size: int, epochs: float) -> int:
    """Optimizer steps of a training of `epochs` passes, a part of a pass included."""
    return max(1, math.ceil(math.ceil(rows / batch_size) * epochs - 1e-9))


def epoch_batches(
    lengths: NDArray[np.int64], batch_size: int, seed: int, epoch: int
) -> list[NDArray[np.int64]]:
    """Row numbers of each global batch of one epoch; every row stands in exactly one.

    Rows are shuffled, sorted by length within pools of 32 batches, cut, and the batches shuffled
    again. The result depends on the arguments alone, not on the number of workers.
    """
    rng = np.random.default_rng([seed, epoch])
    order = rng.permutation(len(lengths))
    batches: list[NDArray[np.int64]] = []
    pool = batch_size * _POOL_BATCHES
    for start in range(0, len(order), pool):
        rows = order[start : start + pool]
        rows = rows[np.argsort(lengths[rows], kind="stable")]
        batches += [rows[i : i + batch_size] for i in range(0, len(rows), batch_size)]
    return [batches[i] for i in rng.permutation(len(batches))]


def batches_from(
    lengths: NDArray[np.int64], batch_size: int, seed: int, first: int, total: int
) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Step number and global batch of each step from `first` up to `total`."""
    each_epoch = math.ceil(len(lengths) / batch_size)
    epoch, batches = -1, list[NDArray[np.int64]]()
    for step in range(first, total):
        if step // each_epoch != epoch:
            epoch = step // each_epoch
            batches = epoch_batches(lengths, batch_size, seed, epoch)
        yield step, batches[step % each_epoch]


def padding_share(lengths: NDArray[np.int64], batches: list[NDArray[np.int64]]) -> float:
    """Share of padding among the places of batches that are padded to their longest row."""
    places = sum(len(rows) * int(lengths[rows].max()) for rows in batches)
    return 1 - float(sum(lengths[rows].sum() for rows in batches)) / places


def worker_share(
    batch: NDArray[np.int64], rank: int, workers: int, places: NDArray[np.int64] | None = None
) -> tuple[NDArray[np.int64], float]:
    """One worker's rows of a global batch, and the weight of their mean loss.

    With accumulation, a worker takes several parts: part i of n workers and k parts each is the share of
    rank i of n × k.

    The weights make the average over workers equal the mean over the global batch, also where the
    last batch does not divide. A worker without rows gets one of another's at weight 0, since
    every worker must take every step.

    Args:
        places: number of places of each row of the data that its loss is a mean over; by default one.
    """
    mine = batch[rank::workers]
    if len(mine) == 0:
        return batch[:1], 0.0
    if places is None:
        return mine, len(mine) * workers / len(batch)
    return mine, float(places[mine].sum() * workers / max(places[batch].sum(), 1))
