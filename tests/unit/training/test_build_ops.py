from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from equipoise import hardware

BUILD = "from equipoise.training.build_ops import build_ops; print('\\n'.join(build_ops()))"


def test_every_op_that_training_would_compile_stands_after_a_build() -> None:
    if not hardware.has_compiler():
        pytest.skip("there is no C++ compiler, so nothing is built")
    found = subprocess.run([sys.executable, "-c", BUILD], capture_output=True, text=True, timeout=240)
    assert found.returncode == 0, found.stderr
    assert [line.endswith(" is built") for line in found.stdout.splitlines()] == [True, True]
    folder = Path(os.environ.get("TORCH_EXTENSIONS_DIR", Path(sys.prefix) / "torch_extensions"))
    assert {file.stem for file in folder.rglob("*.so")} >= {"deepspeed_shm_comm", "quantized_functions_cpu"}


def test_without_a_compiler_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    from equipoise.training.build_ops import build_ops

    monkeypatch.setenv("PATH", "")
    assert build_ops() == ["no C++ compiler: no ops for CPUs are built"]
