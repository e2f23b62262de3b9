from __future__ import annotations

import errno
import time
from pathlib import Path

import pytest

from equipoise.errors import StorageError
from equipoise.training.checkpoints import CheckpointStore, Timetable


def write(text: str, folder: Path) -> None:
    (folder / "state.json").write_text(text, encoding="utf-8")


def test_the_newest_two_are_kept(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path / "checkpoints")
    assert store.latest() is None
    for step in (5, 10, 15):
        store.put(step, lambda folder, step=step: write(str(step), folder))
    assert store.latest() == 15
    assert sorted(path.name for path in store.folder.iterdir()) == ["step-00000010", "step-00000015"]
    assert (store.at(15) / "state.json").read_text(encoding="utf-8") == "15"


def test_one_that_was_not_finished_is_none(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    store.put(5, lambda folder: write("5", folder))

    def fill(folder: Path) -> None:
        write("half", folder)
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(StorageError, match="disk is full"):
        store.put(10, fill)
    assert store.latest() == 5
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000005"]
    # What a killed writer leaves has another name.
    (tmp_path / ".tmp-step-00000010-ab").mkdir()
    assert store.latest() == 5


def test_checkpoints_are_due_by_steps_and_by_seconds() -> None:
    by_steps = Timetable(5, None)
    assert [step for step in range(1, 16) if by_steps.due(step)] == [5, 10, 15]
    by_seconds = Timetable(None, 0.05)
    assert not by_seconds.due(1)
    time.sleep(0.06)
    assert by_seconds.due(2)
    by_seconds.done()
    assert not by_seconds.due(3)
    assert not any(Timetable(None, None).due(step) for step in range(1, 20))
