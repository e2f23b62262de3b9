from __future__ import annotations

from collections.abc import Callable

from equipoise.runs import Candidate, Figure
from equipoise.search.comparability import (
    disturbed_note,
    find_slower,
    hardware_note,
    memory_note,
    slower_notes,
)

Build = Callable[..., Candidate]


def timed(candidate: Candidate, p50_ms: float, machine: str = "here") -> Candidate:
    latency = Figure(value=p50_ms, low=p50_ms * 0.98, high=p50_ms * 1.02, n=100)
    speed = candidate.speed.model_copy(update={"latency_p50_ms": latency})
    hardware = {**candidate.hardware, "fingerprint": machine}
    return candidate.model_copy(update={"speed": speed, "hardware": hardware})


def test_one_machine_needs_no_note(build_candidate: Build) -> None:
    assert hardware_note([]) is None
    assert hardware_note([timed(build_candidate(), 5), timed(build_candidate((0,)), 2)]) is None


def test_machines_that_differ_are_named(build_candidate: Build) -> None:
    note = hardware_note([timed(build_candidate(), 5), timed(build_candidate((0,)), 2, "there")])
    assert note is not None
    assert "1 on here, 1 on there" in note


def test_a_candidate_slower_than_the_same_structure_in_pytorch_is_found(build_candidate: Build) -> None:
    teacher = timed(build_candidate(), 10)
    plain = timed(build_candidate((0, 5)), 4)
    slow = timed(build_candidate((0, 5), "openvino", "int8"), 5)
    fast = timed(build_candidate((0, 5), "onnxruntime", "int8"), 2)
    assert find_slower([teacher, plain, slow, fast]) == [(slow, plain)]
    (note,) = slower_notes([teacher, plain, slow, fast])
    assert note.startswith("2 layers (0,5) int8 openvino is slower than 2 layers (0,5) fp32 torch")
    assert note.endswith("5.00 ms against 4.00")


def test_without_it_the_teacher_is_the_parent(build_candidate: Build) -> None:
    teacher = timed(build_candidate(), 10)
    slow, same = (timed(build_candidate((0, 5), "openvino", "int8"), p50) for p50 in (11, 10.1))
    assert find_slower([teacher, slow]) == [(slow, teacher)]
    assert find_slower([teacher, same]) == []


def test_other_hardware_is_no_parent(build_candidate: Build) -> None:
    teacher = timed(build_candidate(), 10)
    elsewhere = timed(build_candidate((0, 5), "openvino", "int8"), 99, "there")
    assert find_slower([teacher, elsewhere]) == []


def test_a_disturbed_machine_is_named(build_candidate: Build) -> None:
    def slowed(candidate: Candidate, slowdown: float) -> Candidate:
        return candidate.model_copy(
            update={"speed": candidate.speed.model_copy(update={"slowdown": slowdown})}
        )

    calm, disturbed = slowed(build_candidate(), 1.1), slowed(build_candidate((0,)), 1.38)
    assert disturbed_note([calm]) is None
    note = disturbed_note([calm, disturbed])
    assert note is not None
    assert note.startswith(
        "1 of 2 candidates were timed on a disturbed machine (up to 1.4 times slower than calm)"
    )


def test_memory_beyond_what_is_priced_is_named(build_candidate: Callable[..., Candidate]) -> None:
    def taking(gib: float | None) -> Candidate:
        found = build_candidate()
        size = None if gib is None else int(gib * 2**30)
        return found.model_copy(update={"speed": found.speed.model_copy(update={"peak_memory_bytes": size})})

    assert memory_note([taking(None), taking(1)], 1) is None
    note = memory_note([taking(None), taking(1.5), taking(0.5)], 1)
    assert note == (
        "1 of 3 candidates take more memory (up to 1.5 GiB) than cost.replica_memory_gib (1) prices: "
        "raise it and rank again"
    )
