from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Equipoise = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def equipoise(tmp_path: Path) -> Equipoise:
    """`equipoise("doctor", "--json")`: the command in a process of its own, in a folder of its own."""

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "equipoise.cli.main", *arguments],
            capture_output=True,
            text=True,
            timeout=120,
            cwd=tmp_path,
            env={**os.environ, "XDG_STATE_HOME": str(tmp_path / "state"), "COLUMNS": "200"},
        )

    return call
