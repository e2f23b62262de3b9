from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from equipoise.cluster import payload
from equipoise.cluster.names import submission_id
from equipoise.cluster.payload import write_payload
from equipoise.config import RunConfig, load_config
from equipoise.errors import InputError


def test_the_same_run_packs_to_the_same_bytes(run_config: Callable[..., RunConfig], tmp_path: Path) -> None:
    config = run_config()
    first = write_payload(config, tmp_path / "a.zip")
    os.utime(config.data.train, (time.time(), time.time() + 100))
    second = write_payload(config, tmp_path / "b.zip")
    digests = {hashlib.sha256(found.file.read_bytes()).hexdigest() for found in (first, second)}
    assert len(digests) == 1


def test_what_arrives_runs_without_anything_of_this_machine(
    run_config: Callable[..., RunConfig], tmp_path: Path, tiny_bert: Path
) -> None:
    config = run_config(model={"teacher": str(tiny_bert)}, search={"depths": [1]})
    found = write_payload(config, tmp_path / "a.zip")
    there = tmp_path / "there"
    with zipfile.ZipFile(found.file) as archive:
        archive.extractall(there)
    given = load_config(there / "run.yaml")
    assert given.output is None
    for place in (given.data.train, given.data.test, given.model.teacher):
        assert place.startswith("inputs/")
        assert (there / place).exists()
    assert (there / given.data.train).read_bytes() == Path(config.data.train).read_bytes()
    # The packages that came along are the ones that are imported, and they check the run.
    checked = subprocess.run(
        [sys.executable, "-m", "equipoise.cli.main", "run", "-f", "run.yaml", "--dry-run"],
        cwd=there,
        env={**os.environ, "PYTHONPATH": str(there), "XDG_STATE_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert checked.returncode == 0, checked.stderr
    assert "nothing was trained" in checked.stdout


def test_a_file_that_is_absent_is_named(run_config: Callable[..., RunConfig], tmp_path: Path) -> None:
    config = run_config(data={"train": str(tmp_path / "absent.csv")})
    with pytest.raises(InputError, match=r"data\.train: no such file \(got '/"):
        write_payload(config, tmp_path / "a.zip")


def test_above_rays_bound_the_largest_file_is_named_before_anything_is_sent(
    run_config: Callable[..., RunConfig], tmp_path: Path
) -> None:
    big = tmp_path / "big.csv"
    # Random bytes do not shrink.
    with big.open("wb") as file:
        for _ in range(101):
            file.write(os.urandom(2**20))
    with pytest.raises(InputError, match=r"Ray takes 100 MiB; the largest file is .*big\.csv \(101 MiB\)"):
        write_payload(run_config(data={"train": str(big)}), tmp_path / "a.zip")


def test_far_above_the_bound_nothing_is_packed(run_config: Callable[..., RunConfig], tmp_path: Path) -> None:
    huge = tmp_path / "huge.csv"
    with huge.open("wb") as file:
        file.truncate(11 * payload.MAX_UPLOAD_BYTES)
    with pytest.raises(InputError, match=r"110\d MiB to upload"):
        write_payload(run_config(data={"train": str(huge)}), tmp_path / "a.zip")
    assert not (tmp_path / "a.zip").exists()


def test_uris_and_samples_stay_what_they_are(sample_run: Callable[..., RunConfig], tmp_path: Path) -> None:
    config = sample_run(data={"train": "s3://data/train.csv", "test": "sample://reuters-r8/test"})
    found = write_payload(config, tmp_path / "a.zip")
    assert not any(name.startswith("inputs/") for name in found.entries)
    with zipfile.ZipFile(found.file) as archive:
        values = yaml.safe_load(archive.read("run.yaml"))
    assert values["data"]["train"] == "s3://data/train.csv"
    assert submission_id(config).startswith("topics-")
