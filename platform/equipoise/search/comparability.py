"""What a reader of figures must know beside them: other hardware, models that are slower or too large."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from equipoise.runs import Candidate

DISTURBED = 1.25
"""Slowdown from which a figure is named: there the correction was seen to be off by up to a tenth."""


def hardware_note(candidates: Sequence[Candidate]) -> str | None:
    """One line where the candidates were measured on machines that differ; None where they were not."""
    each = {candidate.recipe_hash: candidate for candidate in candidates}
    machines = Counter(_machine(candidate) for candidate in each.values())
    if len(machines) < 2:
        return None
    named = ", ".join(f"{count} on {machine}" for machine, count in sorted(machines.items()))
    return f"measured on machines that differ ({named}): their speeds and dollars are not comparable"


def find_slower(candidates: Sequence[Candidate]) -> list[tuple[Candidate, Candidate]]:
    """Candidates that are slower at batch 1 than what they were made of, each with that parent.

    The parent is the same structure in PyTorch and fp32 where it was measured, on the same hardware;
    otherwise the teacher. Slower means that the intervals of the medians do not touch.
    """
    plain = {
        (candidate.recipe.structure, _machine(candidate)): candidate
        for candidate in candidates
        if candidate.recipe.engine == "torch" and candidate.recipe.precision == "fp32"
    }
    teachers = {_machine(candidate): candidate for candidate in candidates if candidate.is_teacher}
    found = []
    for candidate in candidates:
        machine = _machine(candidate)
        parent = plain.get((candidate.recipe.structure, machine))
        if parent is None or parent.recipe_hash == candidate.recipe_hash:
            parent = teachers.get(machine)
        if parent is None or parent.recipe_hash == candidate.recipe_hash:
            continue
        if candidate.speed.latency_p50_ms.low > parent.speed.latency_p50_ms.high:
            found.append((candidate, parent))
    return found


def slower_notes(candidates: Sequence[Candidate]) -> list[str]:
    """One line for each candidate that came out slower than its parent."""
    return [
        f"{candidate.recipe.label} is slower than {parent.recipe.label}, which it was made of: "
        f"{candidate.speed.latency_p50_ms.value:.2f} ms against {parent.speed.latency_p50_ms.value:.2f}"
        for candidate, parent in find_slower(candidates)
    ]


def disturbed_note(candidates: Sequence[Candidate]) -> str | None:
    """One line where the machine was far from calm while candidates were timed; None where it was not."""
    slowdowns = [candidate.speed.slowdown for candidate in candidates]
    disturbed = [slowdown for slowdown in slowdowns if slowdown >= DISTURBED]
    if not disturbed:
        return None
    return (
        f"{len(disturbed)} of {len(slowdowns)} candidates were timed on a disturbed machine (up to "
        f"{max(disturbed):.1f} times slower than calm): their times are corrected, and less certain than "
        "their intervals say"
    )


def memory_note(candidates: Sequence[Candidate], replica_memory_gib: float) -> str | None:
    """One line where candidates need more memory than a replica is priced for; None where none does."""
    needed = [candidate.speed.peak_memory_bytes or 0 for candidate in candidates]
    count = sum(size > replica_memory_gib * 2**30 for size in needed)
    if not count:
        return None
    return (
        f"{count} of {len(needed)} candidates take more memory (up to {max(needed) / 2**30:.1f} GiB) than "
        f"cost.replica_memory_gib ({replica_memory_gib:g}) prices: raise it and rank again"
    )


def _machine(candidate: Candidate) -> str:
    return str(candidate.hardware.get("fingerprint", "unknown"))
