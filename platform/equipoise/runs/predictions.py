"""What a candidate said on each validation row: `candidates/<recipe_hash>.predictions.npy`."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from equipoise import storage
from equipoise.errors import RunFolderError
from equipoise.runs.folder import RunFolder

_KINDS = 3


@dataclass(frozen=True, eq=False)
class Predictions:
    """One entry a place that the model was asked about: a row of a classifier, a word of a tagger.

    Args:
        row_of: the validation row that each place belongs to, shape (places,).
        truth: class number that the data give each place, shape (places,).
        predicted: class number that the candidate gave it, shape (places,).
    """

    row_of: NDArray[np.int32]
    truth: NDArray[np.int32]
    predicted: NDArray[np.int32]

    @classmethod
    def of_rows(cls, truth: NDArray[np.int64], predicted: NDArray[np.int64]) -> Predictions:
        """Those of a classifier, one a row."""
        return cls.of(np.arange(len(truth)), truth, predicted)

    @classmethod
    def of(
        cls, row_of: NDArray[np.int64], truth: NDArray[np.int64], predicted: NDArray[np.int64]
    ) -> Predictions:
        """From the row, the true class and the predicted class of each place."""
        return cls(row_of.astype(np.int32), truth.astype(np.int32), predicted.astype(np.int32))

    def same_places(self, other: Predictions) -> bool:
        """Whether two candidates were asked the same, so that they can be compared place by place."""
        return np.array_equal(self.row_of, other.row_of) and np.array_equal(self.truth, other.truth)


def put_predictions(run: RunFolder, name: str, predictions: Predictions) -> None:
    """Write a candidate's predictions, whole or not at all.

    Raises:
        StorageError: the disk is full, or the store refused the write.
    """
    table = np.stack([predictions.row_of, predictions.truth, predictions.predicted])
    content = io.BytesIO()
    np.save(content, table, allow_pickle=False)
    storage.put_bytes(_path(run, name), content.getvalue())


def read_predictions(run: RunFolder, name: str) -> Predictions | None:
    """A candidate's predictions; None where none are kept.

    Raises:
        RunFolderError: the file is not what `put_predictions` writes.
    """
    path = _path(run, name)
    try:
        content = storage.read_bytes(path)
    except FileNotFoundError:
        return None
    try:
        table = np.load(io.BytesIO(content), allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise _damaged(path) from error
    if table.dtype != np.int32 or table.ndim != 2 or len(table) != _KINDS:
        raise _damaged(path)
    return Predictions(*table)


def _path(run: RunFolder, name: str) -> str:
    return run.path("candidates", f"{name}.predictions.npy")


def _damaged(path: str) -> RunFolderError:
    return RunFolderError(
        "does not hold predictions",
        where=path,
        remedy="delete it and the candidate's record beside it, and the run measures that candidate again",
    )
