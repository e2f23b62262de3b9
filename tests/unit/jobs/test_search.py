from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_a_mistake_is_one_line_with_its_exit_status(repository: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(repository / "jobs" / "search.py"), "-f", str(tmp_path / "absent.yaml")]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 2
    assert found.stdout == ""
    assert found.stderr.startswith("equipoise: ")
    assert found.stderr.count("\n") == 1
