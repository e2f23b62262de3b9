"""Compiled ops are loaded by one process at a time, and a killed one holds up nobody: real processes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock, Timeout

from equipoise.training.compiled_ops import EXCHANGE, loading_alone

HOLD = """
import pathlib, time
from equipoise.training.compiled_ops import loading_alone

with loading_alone("op"):
    pathlib.Path("op").mkdir()
    pathlib.Path("op/lock").touch()
    print("held", flush=True)
    time.sleep(600)
"""
LOAD = """
from equipoise.ray_runtime import prepare_environment

prepare_environment()
from equipoise.training.compiled_ops import load_ops

load_ops({})
from deepspeed.ops.op_builder.builder import OpBuilder

print(sorted(OpBuilder._loaded_ops))
"""


def test_what_a_killed_process_held_is_free_and_what_a_living_one_holds_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    with subprocess.Popen(
        [sys.executable, "-c", HOLD], cwd=tmp_path, stdout=subprocess.PIPE, env=dict(os.environ), text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(Timeout), FileLock(tmp_path / ".op.lock", timeout=0.3):
            pass
        assert (tmp_path / "op" / "lock").exists()
        holder.send_signal(signal.SIGKILL)
    with loading_alone("op"):
        assert not (tmp_path / "op" / "lock").exists()


@pytest.mark.slow  # Where the copy's times do not suit ninja, it is compiled anew, which takes a minute.
def test_the_op_of_a_training_is_loaded_though_a_killed_one_left_its_file(tmp_path: Path) -> None:
    built = Path(os.environ.get("TORCH_EXTENSIONS_DIR", Path(sys.prefix) / "torch_extensions")) / EXCHANGE
    if not list(built.glob("*.so")):
        pytest.skip("DeepSpeed's op is not built here (make install builds it where there is a compiler)")
    shutil.copytree(built, tmp_path / EXCHANGE)
    (tmp_path / EXCHANGE / "lock").touch()
    found = subprocess.run(
        [sys.executable, "-c", LOAD],
        env={**os.environ, "TORCH_EXTENSIONS_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert found.returncode == 0, found.stderr
    assert EXCHANGE in found.stdout
    assert not (tmp_path / EXCHANGE / "lock").exists()
