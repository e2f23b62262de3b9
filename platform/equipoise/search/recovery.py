"""Short recovery first: which students that were trained briefly are worth training in full.

Successive halving in two rungs, asynchronous as in ASHA (Li et al., 2020): whenever the short rung
has enough structures, its best part goes on. The unit is a structure, since that is what training
costs. They are taken greedily by the hypervolume that each adds to those before (Guerreiro, Fonseca
and Paquete, 2016): of two that are alike the second adds nothing, while one of them still counts.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from equipoise.runs import Candidate, Recipe
from equipoise.search.frontier import losses, pareto_mask
from equipoise.search.hypervolume import hypervolume, positions, reference_point

PROMOTED = 1 / 3
"""Share of the structures that go on: one in eta = 3, as in the papers on successive halving."""

_MARGIN = 0.05
_NOTHING = 1e-9


def short_reason(recipe: Recipe) -> str:
    """Why a candidate of short recovery may not be chosen."""
    return f"trained for {recipe.recovery:.0%} of the epochs only, to see whether more is worth it"


def is_short(candidate: Candidate) -> bool:
    """Whether nothing but its short recovery keeps a candidate from being chosen."""
    return candidate.recipe.recovery < 1 and candidate.rejection == short_reason(candidate.recipe)


def in_full(recipe: Recipe) -> Recipe:
    """The recipe at full recovery."""
    return recipe.model_copy(update={"recovery": 1.0})


def structure_of(recipe: Recipe) -> Recipe:
    """What recipes of one structure have in common, whatever runs them and however long they were trained."""
    return recipe.model_copy(update={"engine": "", "precision": "", "recovery": 1.0})


def promising(candidates: Sequence[Candidate], names: Sequence[str], *, last: bool = False) -> list[Recipe]:
    """Full versions of what was recovered shortly and promises most, the best first.

    Within the rung like is compared with like: short recoveries with each other and with what needs
    none. Of each promoted structure those recipes go on that no other of the rung dominates. A
    structure that adds nothing to the others is never promoted.

    Args:
        candidates: every candidate so far.
        names: objectives.
        last: no further structure will come: the share is rounded up, so that one goes on at least.
    """
    rung = [candidate for candidate in candidates if is_short(candidate)]
    teacher = next((candidate for candidate in candidates if candidate.is_teacher), None)
    groups: dict[Recipe, list[int]] = defaultdict(list)
    for place, candidate in enumerate(rung):
        groups[structure_of(candidate.recipe)].append(place)
    count = (math.ceil if last else math.floor)(len(groups) * PROMOTED)
    if teacher is None or not count:
        return []
    known = [*rung, *(c for c in candidates if c.eligible and not c.recipe.distilled)]
    points = positions(known, names)
    # A short recovery may be far behind the teacher, and still be the best of its kind. With a margin
    # (5 points, 5%), so that an objective in which all are equal does not take the others away.
    reference = np.maximum(reference_point(teacher, names), points[: len(rung)].max(axis=0)) + _MARGIN
    taken = list(range(len(rung), len(known)))
    best: list[Recipe] = []
    for _ in range(count):
        volume = hypervolume(points[taken], reference)
        left = [structure for structure in groups if structure not in best]
        gains = {each: hypervolume(points[taken + groups[each]], reference) - volume for each in left}
        chosen = min(left, key=lambda each: (-gains[each], each.structure))
        if gains[chosen] <= _NOTHING * volume:
            break
        best.append(chosen)
        taken += groups[chosen]
    stays = pareto_mask(losses(known, names))
    return [in_full(rung[place].recipe) for structure in best for place in groups[structure] if stays[place]]
