from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from equipoise import hardware


def test_the_description_is_json_and_says_what_it_is() -> None:
    found = hardware.describe_hardware()
    assert json.loads(json.dumps(found)) == found
    assert found["cores"] == len(hardware.usable_cores()) >= 1
    assert found["cpu"]
    assert found["memory_gib"] > 0
    assert found["libraries"]["ray"]


def test_the_fingerprint_is_stable_between_processes() -> None:
    check = "from equipoise.hardware import *; print(fingerprint(describe_hardware()))"
    result = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == hardware.fingerprint(hardware.describe_hardware())


def test_the_fingerprint_does_not_depend_on_the_order_of_keys_but_on_every_value() -> None:
    found = hardware.describe_hardware()
    mark = hardware.fingerprint(found)
    assert len(mark) == 12
    assert hardware.fingerprint(dict(reversed(found.items()))) == mark
    for key in found:
        assert hardware.fingerprint({**found, key: "other"}) != mark


def test_flags_decide_the_native_precisions(monkeypatch: pytest.MonkeyPatch) -> None:
    def pretend(*flags: str) -> None:
        monkeypatch.setattr(hardware, "describe_hardware", lambda: {"flags": list(flags)})

    pretend("avx2")
    assert not hardware.has_bf16()
    assert not hardware.has_int8()
    pretend("avx2", "avx512_vnni")
    assert not hardware.has_bf16()
    assert hardware.has_int8()
    pretend("amx_int8", "amx_bf16")
    assert hardware.has_bf16()
    assert hardware.has_int8()


def test_memory_is_no_more_than_the_machine_has() -> None:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 0 < hardware.memory_bytes() <= total


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system pins no threads")
def test_pinning_moves_every_thread() -> None:
    check = """
import os, threading, time
from pathlib import Path
from equipoise import hardware
stop = threading.Event()
threads = [threading.Thread(target=stop.wait) for _ in range(3)]
for thread in threads: thread.start()
core = hardware.usable_cores()[-1]
hardware.pin_to([core])
found = [os.sched_getaffinity(int(task.name)) for task in Path("/proc/self/task").iterdir()]
stop.set()
assert len(found) == 4 and all(cores == {core} for cores in found), found
assert hardware.usable_cores() == [core]
"""
    subprocess.run([sys.executable, "-c", check], check=True)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system pins no threads")
def test_pinning_bears_threads_that_end_meanwhile() -> None:
    check = """
import threading
from equipoise import hardware
stop = threading.Event()
def spawn():
    while not stop.is_set():
        [thread.start() for thread in [threading.Thread(target=int) for _ in range(20)]]
spawner = threading.Thread(target=spawn)
spawner.start()
try:
    for _ in range(3000): hardware.pin_to(hardware.usable_cores())
finally:
    stop.set()
"""
    subprocess.run([sys.executable, "-c", check], check=True, timeout=120)
