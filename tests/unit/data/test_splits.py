from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from equipoise.data import stratified_sample, stratified_split
from equipoise.errors import DataError

LABELS = st.lists(st.sampled_from("abcde"), min_size=1, max_size=200)


def test_a_sample_keeps_the_shares() -> None:
    labels = ["a"] * 600 + ["b"] * 300 + ["c"] * 100
    chosen = stratified_sample(labels, 50, seed=1)
    assert Counter(labels[i] for i in chosen) == {"a": 30, "b": 15, "c": 5}
    assert chosen.dtype == np.int64


def test_a_rare_class_is_kept_where_there_is_room() -> None:
    labels = ["a"] * 1000 + ["b", "c", "d"]
    assert Counter(labels[i] for i in stratified_sample(labels, 10, seed=1)) == {
        "a": 7,
        "b": 1,
        "c": 1,
        "d": 1,
    }
    assert len(stratified_sample(labels, 2, seed=1)) == 2


def test_no_more_rows_than_there_are() -> None:
    assert stratified_sample(["a", "b"], 10, seed=1).tolist() == [0, 1]
    with pytest.raises(DataError):
        stratified_sample(["a", "b"], 0, seed=1)


def test_seeds_differ() -> None:
    labels = ["a", "b"] * 100
    assert stratified_sample(labels, 20, 1).tolist() != stratified_sample(labels, 20, 2).tolist()


@given(labels=LABELS, rows=st.integers(1, 250), seed=st.integers(0, 2**32 - 1))
def test_any_sample_is_of_the_size_wanted_and_repeatable(labels: list[str], rows: int, seed: int) -> None:
    chosen = stratified_sample(labels, rows, seed).tolist()
    assert len(chosen) == min(rows, len(labels))
    assert chosen == sorted(set(chosen))
    assert chosen == stratified_sample(labels, rows, seed).tolist()
    if rows >= len(set(labels)):
        assert {labels[i] for i in chosen} == set(labels)


@given(labels=LABELS, share=st.floats(0.01, 0.49), seed=st.integers(0, 2**32 - 1))
def test_any_split_parts_the_rows(labels: list[str], share: float, seed: int) -> None:
    counts = Counter(labels)
    if max(counts.values()) == 1:
        with pytest.raises(DataError, match="no class has two rows"):
            stratified_split(labels, share, seed)
        return
    train, validation = stratified_split(labels, share, seed)
    assert sorted([*train, *validation]) == list(range(len(labels)))
    assert {labels[i] for i in train} == set(labels)
    held = Counter(labels[i] for i in validation)
    assert not any(counts[label] == 1 for label in held)
    splittable = [label for label, count in counts.items() if count > 1]
    if len(validation) >= len(splittable):
        assert set(held) == set(splittable)
    assert validation.tolist() == stratified_split(labels, share, seed)[1].tolist()
