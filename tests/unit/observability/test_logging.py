from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from equipoise.observability.logging import default_log_file


def test_everything_goes_to_the_newest_file_and_nothing_to_the_terminal(tmp_path: Path) -> None:
    # In a process of its own: pytest's handlers stand on this one's root logger.
    script = """
import logging, sys, warnings
from pathlib import Path
from equipoise.observability.logging import log_to
folder = Path(sys.argv[1])
logging.basicConfig()
chatty = logging.getLogger("ray.tune")
logging.getLogger("ray").addHandler(logging.StreamHandler())
log_to(folder / "first" / "a.log")
logging.getLogger("equipoise").info("an early word")
log_to(folder / "b.log")
logging.getLogger("equipoise").info("a later word")
warnings.warn("take care")
chatty.warning("a library's warning")
chatty.info("a library's chatter")
print(len(logging.getLogger().handlers))
"""
    found = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert (found.stdout, found.stderr) == ("1\n", "")
    first, second = ((tmp_path / name).read_text(encoding="utf-8") for name in ("first/a.log", "b.log"))
    assert first.count("\n") == 1
    assert "an early word" in first
    for part in ("a later word", "take care", "a library's warning", "INFO equipoise"):
        assert part in second
    assert "an early word" not in second
    assert "chatter" not in second


def test_the_default_file_is_in_the_state_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert default_log_file() == tmp_path / "equipoise" / "equipoise.log"
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert default_log_file() == tmp_path / "home" / ".local" / "state" / "equipoise" / "equipoise.log"
