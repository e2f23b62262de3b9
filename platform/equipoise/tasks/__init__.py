"""Task families, one file each."""

from equipoise.tasks.task import Arrays, Task, find_task, register

__all__ = ["Arrays", "Task", "find_task", "register"]
