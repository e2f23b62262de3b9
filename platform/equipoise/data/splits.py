"""Stratified, seeded parts of labelled rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from equipoise.errors import DataError

Indices = NDArray[np.int64]


def stratified_sample(labels: Sequence[str], rows: int, seed: int) -> Indices:
    """Positions of a part that keeps the classes' shares, ascending.

    Every class gets at least one row where `rows` allows it; the same arguments give the same part.

    Args:
        labels: label of each row.
        rows: rows wanted; all of them where there are no more.
        seed: of the draw.

    Raises:
        DataError: fewer than one row is wanted.
    """
    if rows < 1:
        raise DataError("a sample needs at least one row", value=rows)
    if rows >= len(labels):
        return np.arange(len(labels), dtype=np.int64)
    codes, counts = _encode(labels)
    return _draw(codes, _allocate(counts, counts, rows), seed)


def stratified_split(labels: Sequence[str], share: float, seed: int) -> tuple[Indices, Indices]:
    """Positions of (train, validation), each ascending, that keep the classes' shares.

    A class of one row stays in train; every other class keeps at least one row in train, and gets one
    in validation where the size of the part allows it.

    Args:
        labels: label of each row.
        share: share of the rows to hold out, between 0 and 1.
        seed: of the draw.

    Raises:
        DataError: no class has two rows, so nothing can be held out.
    """
    codes, counts = _encode(labels)
    if not (counts > 1).any():
        raise DataError(
            "no class has two rows, so none can be held out for validation",
            where="data.train",
            remedy="add rows or set data.validation",
        )
    rows = min(max(1, round(share * len(labels))), int((counts - 1).sum()))
    validation = _draw(codes, _allocate(counts, counts - 1, rows), seed)
    train = np.setdiff1d(np.arange(len(labels), dtype=np.int64), validation, assume_unique=True)
    return train, validation


def _encode(labels: Sequence[str]) -> tuple[Indices, Indices]:
    """Class of each row, counted from 0 in sorted order, and the rows of each class."""
    order = {label: code for code, label in enumerate(sorted(set(labels)))}
    codes = np.array([order[label] for label in labels], dtype=np.int64)
    return codes, np.bincount(codes, minlength=len(order)).astype(np.int64)


def _allocate(counts: Indices, limits: Indices, rows: int) -> Indices:
    """Rows to take from each class: proportional, by largest remainder, within the limits."""
    quota = counts * (rows / counts.sum())
    taken: Indices = np.minimum(np.floor(quota).astype(np.int64), limits)
    if rows >= int((limits > 0).sum()):
        taken = np.maximum(taken, np.minimum(limits, 1))
    while taken.sum() > rows:
        surplus = np.where(taken > 1, taken - quota, -np.inf)
        taken[surplus.argmax()] -= 1
    while taken.sum() < rows:
        shortage = np.where(taken < limits, quota - taken, -np.inf)
        taken[shortage.argmax()] += 1
    return taken


def _draw(codes: Indices, taken: Indices, seed: int) -> Indices:
    generator = np.random.default_rng(seed)
    parts = [
        generator.permutation(np.flatnonzero(codes == code))[:n] for code, n in enumerate(taken.tolist())
    ]
    return np.sort(np.concatenate(parts)).astype(np.int64)
