"""Runs of the command in process groups of their own, and the certainty that nothing of them is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

_MARK = "EQUIPOISE_TEST_RUN"


class Runs:
    """Starts `equipoise` in a process group of its own; every process it leads to carries a mark."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.mark = uuid.uuid4().hex

    def write(self, name: str, values: dict[str, Any]) -> Path:
        """A run config in the folder."""
        path = self.folder / name
        path.write_text(yaml.safe_dump(values), encoding="utf-8")
        return path

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "equipoise.cli.main", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.folder,
            start_new_session=True,
            env={
                **os.environ,
                "XDG_STATE_HOME": str(self.folder / "state"),
                _MARK: self.mark,
                **environment,
            },
        )

    def call(
        self, *arguments: str, timeout_s: float = 240, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run the command to its end."""
        process = self.start(*arguments, **environment)
        try:
            output, errors = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            self.kill(process)
            output, errors = process.communicate()
            pytest.fail(f"the command did not end within {timeout_s} s: {errors[-2000:]}")
        return subprocess.CompletedProcess(process.args, process.returncode, output, errors)

    def kill(self, process: subprocess.Popen[str]) -> None:
        """SIGKILL the command and everything in its process group."""
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=30)

    def left(self) -> list[psutil.Process]:
        """Processes of these runs that are still there."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.status() != psutil.STATUS_ZOMBIE and process.environ().get(_MARK) == self.mark:
                    found.append(process)
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        return found

    def wait_until_none_is_left(self, timeout_s: float = 30) -> list[str]:
        """Names of what is still there at the end of the time."""
        deadline = time.monotonic() + timeout_s
        while (left := self.left()) and time.monotonic() < deadline:
            time.sleep(0.2)
        return [" ".join(process.cmdline()[:3]) for process in left]

    @staticmethod
    def records(folder: Path) -> dict[str, tuple[int, bytes]]:
        """Time and bytes of each record that a run folder holds."""
        patterns = (
            "*.json",
            "*.html",
            "candidates/*.json",
            "students/*/trained.json",
            "teacher/trained.json",
        )
        return {
            str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes())
            for pattern in patterns
            for path in folder.glob(pattern)
        }

    def clean(self) -> None:
        """End what is left, Ray's own processes among it."""
        for process in self.left():
            process.kill()
        self.wait_until_none_is_left()


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    """`runs.call("run", "-f", ...)`: the command, real, in processes of its own."""
    found = Runs(tmp_path_factory.mktemp("runs"))
    yield found
    found.clean()


@pytest.fixture(scope="module")
def tiny_run(tiny_bert: Path, intent_csv: Path, intent_test_csv: Path) -> Callable[..., dict[str, Any]]:
    """`tiny_run(search={...})`: a run config on a user's own CSV whose stages take seconds."""
    values: dict[str, Any] = {
        "name": "tiny",
        "data": {"train": str(intent_csv), "test": str(intent_test_csv), "validation_share": 0.2},
        "model": {"teacher": str(tiny_bert), "max_length": 32},
        "training": {
            "workers": 2,
            "precision": "fp32",
            "epochs": 8,
            "batch_size": 16,
            "learning_rate": 3e-3,
            "freeze_embeddings": False,
        },
        "distillation": {"epochs": 4, "learning_rate": 3e-3},
        "search": {
            "trials": 5,
            "depths": [1],
            "layers": ["first"],
            "engines": ["torch", "onnxruntime"],
            "precisions": ["fp32", "int8"],
            "sampler": "random",
        },
        "measurement": {
            "robustness_rows": 12,
            "corruptions_per_row": 1,
            "gap_rows": 20,
            "resamples": 100,
            "latency_requests": 20,
            "throughput_batches": 3,
        },
        "constraints": {"max_drop": 0.5},
        "serving": {"teacher_rows": 20},
    }

    def build(**changes: Any) -> dict[str, Any]:
        return {
            key: {**values.get(key, {}), **changes.get(key, {})}
            if isinstance(values.get(key), dict)
            else changes.get(key, values.get(key))
            for key in values.keys() | changes.keys()
        }

    return build
