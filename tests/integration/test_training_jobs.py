"""jobs/finetune.py and jobs/distill.py: parts of a run, which a later part goes on from."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

# Four trainings on Ray, one after the other.
pytestmark = [pytest.mark.timeout(400), pytest.mark.slow]


def test_a_killed_driver_goes_on_from_its_checkpoint_and_a_student_follows(
    repository: Path, runs: Any, tiny_run: Callable[..., dict[str, Any]]
) -> None:
    """SIGKILL of the whole process group in the middle of fine-tuning, then the same command again."""
    training = {"epochs": 60, "checkpoint_every_steps": 20, "retries": 0}
    config = runs.write("jobs.yaml", tiny_run(training=training))
    folder = runs.folder / "jobs"

    def command(job: str, *arguments: str) -> list[str]:
        return [
            sys.executable,
            str(repository / "jobs" / job),
            "-f",
            str(config),
            "--out",
            str(folder),
            *arguments,
        ]

    environment = {
        **os.environ,
        "XDG_STATE_HOME": str(runs.folder / "state"),
        "EQUIPOISE_TEST_RUN": runs.mark,
    }
    process = subprocess.Popen(
        command("finetune.py"), cwd=runs.folder, env=environment, start_new_session=True
    )
    deadline = time.monotonic() + 150
    while not list(folder.glob(".scratch/checkpoints-*/step-*")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(timeout=30)
    runs.wait_until_none_is_left()
    runs.clean()
    assert not (folder / "teacher" / "trained.json").exists()
    kept = sorted(path.name for path in folder.glob(".scratch/checkpoints-*/step-*"))
    assert kept

    done = subprocess.run(
        command("finetune.py"), cwd=runs.folder, env=environment, capture_output=True, text=True, timeout=150
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"done: {folder / 'teacher'}"
    log = (folder / "logs" / "equipoise.log").read_text(encoding="utf-8")
    assert f"goes on from step {int(kept[-1].removeprefix('step-'))}" in log
    assert not list(folder.glob(".scratch/checkpoints-*"))

    distilled = subprocess.run(
        command("distill.py", "--layers", "0"),
        cwd=runs.folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=150,
    )
    assert distilled.returncode == 0, distilled.stderr
    assert re.search(r"distilling .* · \d+/\d+ · loss .* left · ", distilled.stdout), distilled.stdout
    assert (Path(distilled.stdout.splitlines()[-1].removeprefix("done: ")) / "model.safetensors").is_file()

    wrong = subprocess.run(
        command("distill.py", "--layers", "0,7"),
        cwd=runs.folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=150,
    )
    assert wrong.returncode == 2
    assert "layers: are no student of a teacher with 2 layers (got '0,7')" in wrong.stderr
