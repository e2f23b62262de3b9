"""Task families, one file each."""

from equipoise.tasks.answers import IGNORED, Answers, join_answers
from equipoise.tasks.task import Arrays, Task, find_task, register

__all__ = ["IGNORED", "Answers", "Arrays", "Task", "find_task", "join_answers", "register"]
