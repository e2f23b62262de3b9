from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from seqeval.metrics.sequence_labeling import get_entities

from equipoise.tasks.entities import Entity, find_entities

TAGS = st.lists(st.sampled_from(["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]), max_size=12)


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ([], []),
        (["O", "O"], []),
        (["B-PER", "I-PER", "O", "B-LOC"], [("PER", 0, 2), ("LOC", 3, 4)]),
        (["B-PER", "B-PER"], [("PER", 0, 1), ("PER", 1, 2)]),
        (["I-PER", "I-LOC", "I-LOC"], [("PER", 0, 1), ("LOC", 1, 3)]),
        (["O", "NOUN", "NOUN", "VERB"], [("NOUN", 1, 3), ("VERB", 3, 4)]),
    ],
)
def test_entities_of_tags(tags: list[str], expected: list[tuple[str, int, int]]) -> None:
    assert find_entities(tags) == [Entity(*entity) for entity in expected]


@given(tags=TAGS)
def test_entities_are_those_of_seqeval(tags: list[str]) -> None:
    expected = [Entity(kind, start, last + 1) for kind, start, last in get_entities(tags)]
    assert find_entities(tags) == expected


@given(tags=TAGS)
def test_entities_cover_exactly_what_is_tagged(tags: list[str]) -> None:
    covered = [place for entity in find_entities(tags) for place in range(entity.start, entity.stop)]
    assert covered == [place for place, tag in enumerate(tags) if tag != "O"]
