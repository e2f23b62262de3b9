"""What every trial of one search shares."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise.config import RunConfig
from equipoise.config.search import Vocabulary
from equipoise.data import PreparedData, Rows
from equipoise.tasks import Answers, Task, find_task

VOCABULARY = "vocabulary"
"""Where in a run folder the trimmed tokenizer stands."""


def encoded_folder(root: Path) -> Path:
    """Where in a run folder the training rows lie encoded: once, for the teacher and all students."""
    return root / ".scratch" / "encoded"


def states_folder(root: Path) -> Path:
    """Where in a run folder the teacher's hidden states at the training rows lie, for all students."""
    return root / ".scratch" / "states"


@dataclass(frozen=True)
class TrialContext:
    """Config, data and the teacher; carried to the trials through Ray's object store.

    `lessons` are the rows that students learn from, `train_answers` the teacher's at their places;
    `teacher_answers` its answers on the validation rows, `validation_truth` the true class at each of
    their places; `teacher_core_s` is what its training took.
    """

    config: RunConfig
    folder: str
    data: PreparedData
    task_description: dict[str, Any]
    lessons: Rows
    train_answers: Answers
    teacher_answers: Answers
    validation_truth: NDArray[np.int64]
    teacher_core_s: float
    revision: str

    @property
    def root(self) -> Path:
        """The run folder."""
        return Path(self.folder)

    @property
    def teacher(self) -> Path:
        """The teacher's model folder, which holds the tokenizer too."""
        return self.root / "teacher"

    def load_task(self, temperature: float = 1.0, vocabulary: Vocabulary = "full") -> Task:
        """The task with the teacher's preprocessor, or with one whose vocabulary was trimmed."""
        description = {**self.task_description, "temperature": temperature}
        return find_task(description["name"]).load(
            self.teacher if vocabulary == "full" else self.root / VOCABULARY, description
        )
