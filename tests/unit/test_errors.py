from __future__ import annotations

import pickle

import cloudpickle  # type: ignore[import-untyped,unused-ignore]
import pytest

from equipoise import errors
from equipoise.errors import (
    BundleError,
    ConfigError,
    DataError,
    EquipoiseError,
    InfeasibleError,
    InputError,
    InterruptedRunError,
    ModelError,
    OverBudgetError,
    ReconcileError,
    RetryableError,
    RunFolderError,
    ServiceError,
    StorageError,
    TrainingDivergedError,
    shorten,
)

STATUSES: dict[type[EquipoiseError], int] = {
    EquipoiseError: 1,
    InputError: 2,
    ConfigError: 2,
    DataError: 2,
    ModelError: 2,
    BundleError: 2,
    RunFolderError: 2,
    TrainingDivergedError: 2,
    InfeasibleError: 3,
    OverBudgetError: 4,
    ReconcileError: 5,
    RetryableError: 6,
    ServiceError: 6,
    StorageError: 6,
    InterruptedRunError: 130,
}


def test_every_error_has_its_exit_status_and_a_place_in_the_drawn_tree() -> None:
    named = {getattr(errors, name) for name in errors.__all__ if name != "shorten"}
    assert named == STATUSES.keys()
    assert {kind: kind.exit_status for kind in STATUSES} == STATUSES
    assert all(kind.__name__ in (errors.__doc__ or "") for kind in STATUSES)


def test_only_outside_faults_are_worth_a_retry() -> None:
    assert {kind for kind in STATUSES if issubclass(kind, RetryableError)} == {
        RetryableError,
        ServiceError,
        StorageError,
    }


def test_the_message_says_where_what_value_and_remedy() -> None:
    error = ConfigError("wrong value", where="run.yaml: seed", value=-1, remedy="use 0 or more")
    assert str(error) == "run.yaml: seed: wrong value (got -1); use 0 or more"
    assert str(ConfigError("no value")) == "no value"


def test_the_message_is_one_line_whatever_is_in_it() -> None:
    error = DataError("two\nlines", where="a\nfile", value="x\n" * 500, remedy="mend\r\n it")
    assert "\n" not in str(error)
    assert "\r" not in str(error)
    assert len(str(error)) < 200


def test_a_long_value_is_cut() -> None:
    assert shorten("a" * 500, limit=10) == "'aaaaaaaa…"
    assert shorten("a") == "'a'"


@pytest.mark.parametrize("module", [pickle, cloudpickle])
@pytest.mark.parametrize("kind", list(STATUSES))
def test_errors_cross_process_borders(kind: type[EquipoiseError], module: object) -> None:
    error = kind("what", where="where", value=[1, "two"], remedy="remedy")
    back = module.loads(module.dumps(error))  # type: ignore[attr-defined]
    assert type(back) is kind
    assert (str(back), back.exit_status) == (str(error), kind.exit_status)
    assert (back.what, back.where, back.value, back.remedy) == ("what", "where", [1, "two"], "remedy")
