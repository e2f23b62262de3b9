from __future__ import annotations

import json
import subprocess
from collections.abc import Callable

from equipoise import hardware
from equipoise.engines import ENGINES

Equipoise = Callable[..., "subprocess.CompletedProcess[str]"]


def test_json_holds_the_machine_and_what_it_means(equipoise: Equipoise) -> None:
    found = equipoise("doctor", "--json")
    assert (found.returncode, found.stderr) == (0, "")
    report = json.loads(found.stdout)
    assert report["hardware"] == hardware.describe_hardware()
    assert report["fingerprint"] == hardware.fingerprint(hardware.describe_hardware())
    assert all(finding.keys() == {"good", "what", "meaning"} for finding in report["findings"])
    named = " ".join(finding["what"] for finding in report["findings"])
    assert all(f"engine {engine}" in named for engine in ENGINES)


def test_a_person_gets_a_table(equipoise: Equipoise) -> None:
    found = equipoise("doctor")
    assert (found.returncode, found.stderr) == (0, "")
    assert f"{hardware.describe_hardware()['cores']} cores" in found.stdout
    assert "ok" in found.stdout
