from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("job", [["search.py"], ["finetune.py"], ["distill.py", "--layers", "0,1"]])
def test_a_mistake_is_one_line_with_its_exit_status(repository: Path, tmp_path: Path, job: list[str]) -> None:
    script, *options = job
    file = str(tmp_path / "absent.yaml")
    command = [sys.executable, str(repository / "jobs" / script), "-f", file, *options]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 2
    assert found.stdout == ""
    assert found.stderr.startswith("equipoise: ")
    assert found.stderr.count("\n") == 1
