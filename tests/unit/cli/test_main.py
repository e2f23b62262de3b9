from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from equipoise import __version__
from equipoise.cli.main import app

Equipoise = Callable[..., "subprocess.CompletedProcess[str]"]
COMMANDS = sorted(str(command.name) for command in app.registered_commands)


def test_the_commands_are_there() -> None:
    assert {"demo", "run", "show", "serve", "init", "doctor", "exporter"} <= set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_explains_a_command_by_example(equipoise: Equipoise, command: str) -> None:
    found = equipoise(command, "--help")
    assert (found.returncode, found.stderr) == (0, "")
    assert f"Example: equipoise {command}" in found.stdout


def test_help_lists_every_command_and_says_where_to_start(equipoise: Equipoise) -> None:
    found = equipoise("--help")
    assert found.returncode == 0
    assert all(command in found.stdout for command in COMMANDS)
    assert "equipoise demo" in found.stdout


def test_the_version_is_the_packages(equipoise: Equipoise) -> None:
    assert equipoise("--version").stdout == f"equipoise {__version__}\n"


def test_starting_imports_nothing_heavy() -> None:
    heavy = ("torch", "ray", "transformers", "deepspeed", "numpy", "pydantic", "pyarrow", "plotly", "aiohttp")
    check = f"import sys, equipoise.cli.main; print([n for n in {heavy!r} if n in sys.modules])"
    found = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["run", "-f", "absent.yaml"], ["absent.yaml", "no such file", "equipoise init"]),
        (["show", "absent"], ["absent", "no config.json"]),
        (["exporter", "absent"], ["absent", "no config.json"]),
        (["serve", "absent"], ["absent", "bundle"]),
    ],
)
def test_a_fault_of_the_user_is_one_line_and_status_2(
    equipoise: Equipoise, arguments: list[str], parts: list[str]
) -> None:
    found = equipoise(*arguments)
    assert (found.returncode, found.stdout) == (2, "")
    assert found.stderr.startswith("equipoise: ")
    assert found.stderr.count("\n") == 1
    assert all(part in found.stderr for part in parts)


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["run"], "--file"),
        (["rum"], "rum"),
        (["doctor", "--jason"], "--jason"),
        (["serve", "x", "--port", "9"], "--port"),
    ],
)
def test_a_wrong_command_line_is_status_2_and_no_traceback(
    equipoise: Equipoise, arguments: list[str], part: str
) -> None:
    found = equipoise(*arguments)
    assert found.returncode == 2
    assert part in found.stderr
    assert "Traceback" not in found.stderr


def test_a_log_that_cannot_be_written_is_said_so(equipoise: Equipoise, tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(
        "{name: tiny, data: {train: a.csv, test: b.csv}, model: {teacher: c}}", encoding="utf-8"
    )
    (tmp_path / "state").write_text("a file where a folder is wanted", encoding="utf-8")
    found = equipoise("run", "-f", "run.yaml", "--dry-run")
    assert found.returncode == 2
    assert found.stderr.count("\n") == 1
    assert str(tmp_path / "state") in found.stderr
    assert "XDG_STATE_HOME" in found.stderr


def test_a_reader_that_leaves_early_sees_no_traceback(tmp_path: Path) -> None:
    command = f"{sys.executable} -m equipoise.cli.main doctor --json | true"
    found = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=tmp_path)
    assert found.stderr == ""
