from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

from equipoise.runs import RunFolder

Equipoise = Callable[..., "subprocess.CompletedProcess[str]"]


def test_the_four_terms_in_words(equipoise: Equipoise, priced_run: RunFolder) -> None:
    found = equipoise(
        "cost", priced_run.location, "--rps", "50", "--profile", "office-hours", "--months", "12"
    )

    assert found.returncode == 0, found.stderr
    assert found.stdout.startswith("50 requests/s on average (office-hours) over 12 months on aws/c7i.large")
    for word in ("training", "search", "serving", "storage", "labels", "maintenance", "in all"):
        assert any(line.startswith(word) and line.count("$") >= 2 for line in found.stdout.splitlines()), word
    assert "is cheaper than the teacher" in found.stdout
    assert all(len(line) <= 200 for line in found.stdout.splitlines())


def test_the_four_terms_for_a_script(equipoise: Equipoise, priced_run: RunFolder) -> None:
    found = json.loads(
        equipoise("cost", priced_run.location, "--p99-ms", "60", "--candidate", "teacher", "--json").stdout
    )

    assert found["candidate"]["is_teacher"]
    assert found["candidate"]["keeps_p99"] is True
    assert len(found["load_curve"]) > 10


def test_figures_of_machines_that_differ_are_told(equipoise: Equipoise, priced_run: RunFolder) -> None:
    assert equipoise("cost", priced_run.location).stderr == ""
    moved = next(c for c in priced_run.candidates() if c.recipe.depth == 2 and c.eligible)
    moved = moved.model_copy(update={"hardware": {"fingerprint": "elsewhere"}})
    priced_run.put(moved.model_dump(mode="json"), "candidates", f"{moved.recipe_hash}.json")
    for command in (("cost",), ("choose",), ("rerank",), ("cost", "--json")):
        found = equipoise(command[0], priced_run.location, *command[1:])
        assert found.stderr.startswith("warning: measured on machines that differ (1 on elsewhere, "), command


def test_prices_of_long_ago_are_told(equipoise: Equipoise, priced_run: RunFolder, tmp_path: Path) -> None:
    old = "{vcpus: 2, memory_gib: 4, usd_per_hour: 1, source: x, date: 2020-01-01}"
    (tmp_path / "old.yaml").write_text(f"nodes:\n  lab/old: {old}\n")
    for command in ("cost", "rerank"):
        found = equipoise(command, priced_run.location, "--prices", str(tmp_path / "old.yaml"))
        assert found.stderr.startswith("warning: 1 price over a year old, such as nodes.lab/old ("), command


def test_a_wrong_rate_is_one_line(equipoise: Equipoise, priced_run: RunFolder) -> None:
    found = equipoise("cost", priced_run.location, "--rps", "-3")

    assert (found.returncode, found.stdout) == (2, "")
    assert found.stderr == "equipoise: cost: rps: wrong value (got -3.0); input should be greater than 0\n"


def test_a_choice_ranked_again_in_words(equipoise: Equipoise, priced_run: RunFolder) -> None:
    found = equipoise("rerank", priced_run.location, "--rps", "200")

    assert found.returncode == 0, found.stderr
    assert [line[:4] for line in found.stdout.splitlines()] == ["at 2", "was:", "old:", "new:", "the "]


def test_a_choice_ranked_again_for_a_script(equipoise: Equipoise, priced_run: RunFolder) -> None:
    found = equipoise("rerank", priced_run.location, "--p99-ms", "0.5", "--json")

    assert found.returncode == 3
    assert json.loads(found.stdout)["binding"] == "p99_ms"
    assert found.stderr.startswith("equipoise: constraints.p99_ms: no candidate meets the constraints")
