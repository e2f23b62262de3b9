"""Every error Equipoise raises on purpose, with the exit status each one ends the process with.

    EquipoiseError                1   a defect of ours, if raised bare
    ├── InputError                2   something the user gave is wrong; trying again does not help
    │   ├── ConfigError               run config, price book or command-line value
    │   ├── DataError                 data files, columns, labels, rows
    │   ├── ModelError                model name, folder or weights
    │   ├── BundleError               bundle missing, incomplete or tampered with
    │   ├── RunFolderError            run folder missing, in use, or of another config
    │   └── TrainingDivergedError     the loss is no longer finite at these settings
    ├── InfeasibleError           3   no candidate meets the constraints
    ├── OverBudgetError           4   a spending limit was reached
    ├── ReconcileError            5   the ledger and the node-hours disagree
    ├── RetryableError            6   an outside fault; the same command may succeed later
    │   ├── ServiceError              a server, hub or cluster failed or timed out
    │   └── StorageError              a disk is full, or a store refused a write
    └── InterruptedRunError     130   stopped by the user; the run can be resumed

`InputError` and the others above `RetryableError` are permanent; only `RetryableError` is worth
trying again without changing anything.
"""

from __future__ import annotations

__all__ = [
    "BundleError",
    "ConfigError",
    "DataError",
    "EquipoiseError",
    "InfeasibleError",
    "InputError",
    "InterruptedRunError",
    "ModelError",
    "OverBudgetError",
    "ReconcileError",
    "RetryableError",
    "RunFolderError",
    "ServiceError",
    "StorageError",
    "TrainingDivergedError",
    "shorten",
]


def shorten(value: object, limit: int = 80) -> str:
    """`repr` of a value on one line, cut to `limit` characters."""
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"


class EquipoiseError(Exception):
    """One line for the user: what is wrong, where, the value found, and the remedy.

    Args:
        what: the fault, in a few words.
        where: the field path, file or address it was found at.
        value: the offending value; left out of the message where it is None.
        remedy: what would put it right.
    """

    exit_status = 1

    def __init__(self, what: str, *, where: str = "", value: object = None, remedy: str = "") -> None:
        self.what, self.where, self.value, self.remedy = what, where, value, remedy
        head = f"{where}: {what}" if where else what
        found = f" (got {shorten(value)})" if value is not None else ""
        tail = f"; {remedy}" if remedy else ""
        super().__init__(" ".join(f"{head}{found}{tail}".split()))

    def __reduce__(self) -> tuple[object, ...]:
        # Ray carries exceptions between processes; keyword-only arguments need their own rebuild.
        return (_rebuild, (type(self), self.what, self.where, self.value, self.remedy))


def _rebuild(kind: type[EquipoiseError], what: str, where: str, value: object, remedy: str) -> EquipoiseError:
    return kind(what, where=where, value=value, remedy=remedy)


class InputError(EquipoiseError):
    """What the user gave cannot be used; permanent."""

    exit_status = 2


class ConfigError(InputError):
    """A config file, price book or command-line value is wrong."""


class DataError(InputError):
    """A data file, column, label or row is wrong."""


class ModelError(InputError):
    """A model cannot be found or is of the wrong kind."""


class BundleError(InputError):
    """A bundle is missing, incomplete or was changed after it was written."""


class RunFolderError(InputError):
    """A run folder is missing, in use, or belongs to another config."""


class TrainingDivergedError(InputError):
    """The loss became infinite or NaN; names step, rows and learning rate."""


class InfeasibleError(EquipoiseError):
    """No candidate meets the constraints; names the binding one and the nearest candidate."""

    exit_status = 3


class OverBudgetError(EquipoiseError):
    """A spending limit was reached."""

    exit_status = 4


class ReconcileError(EquipoiseError):
    """Ledger lines and node-hours disagree."""

    exit_status = 5


class RetryableError(EquipoiseError):
    """An outside fault: the same command may succeed later."""

    exit_status = 6


class ServiceError(RetryableError):
    """A server, hub or cluster failed or did not answer in time."""


class StorageError(RetryableError):
    """A write did not happen: the disk is full or the store refused it."""


class InterruptedRunError(EquipoiseError):
    """Stopped by the user; running again continues."""

    exit_status = 130
