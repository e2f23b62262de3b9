from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

from equipoise.errors import RunFolderError
from equipoise.runs import RunFolder
from equipoise.runs.predictions import Predictions, put_predictions, read_predictions


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "run")


def saved(array: object) -> bytes:
    content = io.BytesIO()
    np.save(content, np.asarray(array), allow_pickle=True)
    return content.getvalue()


def test_what_is_put_is_read(run: RunFolder) -> None:
    said = Predictions.of_rows(np.array([0, 1, 2, 1]), np.array([0, 2, 2, 1]))
    put_predictions(run, "abc", said)
    found = read_predictions(run, "abc")
    assert found is not None
    assert found.row_of.tolist() == [0, 1, 2, 3]
    assert found.truth.tolist() == [0, 1, 2, 1]
    assert found.predicted.tolist() == [0, 2, 2, 1]
    assert found.same_places(said)


def test_predictions_are_no_candidate_records(run: RunFolder) -> None:
    put_predictions(run, "abc", Predictions.of_rows(np.array([0]), np.array([0])))
    assert run.candidates() == []
    assert read_predictions(run, "other") is None


def test_candidates_of_other_rows_are_told_apart() -> None:
    said = Predictions.of_rows(np.array([0, 1]), np.array([0, 0]))
    assert not said.same_places(Predictions.of_rows(np.array([0, 2]), np.array([0, 0])))
    assert not said.same_places(Predictions.of_rows(np.array([0, 1, 1]), np.array([0, 0, 1])))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not numpy",
        saved([[0, 1], [1, 1], [0, 1]])[:-4],
        saved(np.zeros((2, 4), np.int32)),
        saved(np.zeros((3, 4), np.float32)),
        saved(np.array([{"a": 1}, None], dtype=object)),
    ],
    ids=["empty", "text", "cut", "two rows", "floats", "pickled objects"],
)
def test_a_damaged_file_is_refused_and_never_unpickled(run: RunFolder, content: bytes) -> None:
    path = run.local("candidates", "abc.predictions.npy")
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    with pytest.raises(RunFolderError, match="does not hold predictions") as caught:
        read_predictions(run, "abc")
    assert caught.value.where == str(path)
