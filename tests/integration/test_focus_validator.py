"""The FOCUS export before the public validator, in an environment of its own: what it prints is read.

`EQUIPOISE_FOCUS_PYTHON` names the interpreter of an environment that has `focus-validator` 1.0.0; without
it one is made once, in `$XDG_CACHE_HOME/equipoise-tests`.
"""

from __future__ import annotations

import csv
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

from equipoise.config import RunConfig
from equipoise.costs.ledger import read_ledger
from equipoise.costs.ledger_focus import export_focus
from equipoise.costs.ledger_reconcile import reconcile
from equipoise.costs.ledger_writer import LedgerWriter
from equipoise.pipeline.metered_node import PIPELINE, metered_node
from equipoise.runs import RunFolder

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # The environment is 400 MB, once.

PACKAGES = ("focus-validator==1.0.0", "multimethod<2", "pyarrow<21")
Validate = Callable[[Path], str]


@pytest.fixture(scope="module")
def validate() -> Validate:
    """What the validator prints of a file; its exit status is 0 either way."""
    python = os.environ.get("EQUIPOISE_FOCUS_PYTHON") or str(_environment() / "bin" / "python")
    # It opens its own rules relative to the folder it is run in.
    where = "import focus_validator, pathlib; print(pathlib.Path(focus_validator.__file__).parents[1])"
    folder = subprocess.run(
        [python, "-c", where], capture_output=True, text=True, timeout=120, check=True
    ).stdout.strip()

    def run(file: Path) -> str:
        code = "import sys; from focus_validator.main import main; sys.argv[0] = 'focus-validator'; main()"
        command = [python, "-c", code, "--data-file", str(file), "--validate-version", "1.0"]
        found = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=folder)
        return found.stdout + found.stderr

    return run


def _environment() -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser())
    folder = cache / "equipoise-tests" / PACKAGES[0].replace("==", "-")
    ready = folder / "ready"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if ready.is_file():
            return folder
        try:
            for command in (
                [sys.executable, "-m", "venv", "--clear", str(folder)],
                [str(folder / "bin" / "pip"), "install", "--quiet", *PACKAGES],
            ):
                subprocess.run(command, capture_output=True, text=True, timeout=600, check=True)
        except subprocess.SubprocessError as error:
            last = (str(getattr(error, "stderr", "") or error).strip().splitlines() or ["?"])[-1]
            pytest.skip(f"no environment for {PACKAGES[0]} could be made here: {last}")
        ready.touch()
    return folder


@pytest.fixture(scope="module")
def metered(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A ledger of every kind of line, put by what puts them in a run: node, blocks, a fault, what is kept."""
    folder = tmp_path_factory.mktemp("metered") / "run"
    values = {
        "name": "tiny",
        "data": {"train": "a.csv", "test": "b.csv"},
        "model": {"teacher": "sample://x"},
    }
    config, run = RunConfig.model_validate(values), RunFolder(folder)
    run.put(config.model_dump(mode="json"), "config.json")
    for name in ("teacher/outputs", "students/layers-0-5", "models/abc", "bundle"):
        (folder / name).mkdir(parents=True)
        (folder / name / "weights").write_bytes(b"x" * 100_000)
    with metered_node(run, config, config.cost.node, PIPELINE), LedgerWriter(run, config, "driver") as ledger:
        with ledger.meter(
            "training", cores=2, detail='fine-tune, "the" teacher', resource_type="worker"
        ) as b:
            b.worker_cpu_s = [0.01, 0.02]
            time.sleep(0.05)
        with pytest.raises(ZeroDivisionError), ledger.meter("search", cores=1, detail="judge"):
            _ = 1 / 0
        time.sleep(0.05)
    lines = read_ledger(run)
    assert {line.charge_class for line in lines if line.kind == "usage"} == {"workload", "overhead", "idle"}
    assert {line.resource_type for line in lines} >= {"node", "worker", "task", "artefact", "cache"}
    assert reconcile(run).reconciles
    return run


@pytest.mark.parametrize("name", ["bill.csv", "bill.parquet"])
def test_the_export_is_accepted(validate: Validate, metered: RunFolder, tmp_path: Path, name: str) -> None:
    assert export_focus(read_ledger(metered), str(tmp_path / name)) > 5
    assert validate(tmp_path / name).strip() == "Validation succeeded."


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("BilledCost", "much"),
        ("ChargePeriodStart", "yesterday"),
        ("BillingCurrency", "dollars"),
        ("BilledCost", None),
    ],
)
def test_what_breaks_the_rules_is_not(
    validate: Validate, metered: RunFolder, tmp_path: Path, column: str, value: str | None
) -> None:
    """So that the acceptance above says something."""
    export_focus(read_ledger(metered), str(tmp_path / "bill.csv"))
    with (tmp_path / "bill.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row[column] = value or ""
        if value is None:
            del row[column]
    with (tmp_path / "bill.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    assert "Validation succeeded" not in validate(tmp_path / "bill.csv")
