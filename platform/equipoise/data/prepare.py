"""From the config's sources to the three splits a run uses."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from equipoise.config import RunConfig
from equipoise.data.checks import DataReport, check_labels, describe_split, find_repeats
from equipoise.data.layout import Layout, is_empty, row_digests, stratum
from equipoise.data.rows import Rows
from equipoise.data.sources import load_rows
from equipoise.data.splits import stratified_sample, stratified_split
from equipoise.errors import DataError


@dataclass(frozen=True, slots=True)
class PreparedData:
    """What training, search and the final test each see."""

    train: Rows
    validation: Rows
    test: Rows
    labels: tuple[str, ...]
    """Sorted; the order of the logits. None for a layout without labels."""
    report: DataReport

    def settled(self, folder: Path) -> PreparedData:
        """The same data; rows that stand on disk are copied to a folder that nodes share, emptied first."""
        shutil.rmtree(folder, ignore_errors=True)
        train, validation, test = (rows.settled(folder) for rows in (self.train, self.validation, self.test))
        return replace(self, train=train, validation=validation, test=test)


def prepare_data(config: RunConfig, layout: Layout = "text") -> PreparedData:
    """Load, clean and split the data; the same config, seed and files give the same splits.

    Empty rows are dropped everywhere. With `data.deduplicate`, training texts that repeat an earlier
    one (the first label stands) or stand in test or validation are dropped. Validation, where none is
    given, is held out of train; `data.train_rows`, `data.validation_rows` and `data.test_rows` then take
    their part of what is left.

    Raises:
        DataError: a source, row or label is wrong, or nothing is left of a split.
        ServiceError: a remote store failed.
    """
    data = config.data
    train, train_empty = _load(config, layout, "train", data.train)
    test, test_empty = _load(config, layout, "test", data.test)
    validation, validation_empty = (
        _load(config, layout, "validation", data.validation) if data.validation else (None, 0)
    )
    repeats = find_repeats(train, validation, test)
    found = len(train)
    if data.deduplicate:
        train = _deduplicate(train, [test, *([validation] if validation else ())])
    dropped = found - len(train)
    if validation is None:
        kept, held = stratified_split(_strata(train), data.validation_share, config.seed)
        train, validation = train.select(kept), train.select(held)
        if not data.deduplicate:
            repeats = repeats.model_copy(
                update=find_repeats(train, validation, test).model_dump(
                    include={"validation_leakage", "validation_in_test"}
                )
            )
    unused = len(train) - min(len(train), data.train_rows or len(train))
    train = _part(train, data.train_rows, config.seed)
    validation = _part(validation, data.validation_rows, config.seed)
    test = _part(test, data.test_rows, config.seed)
    labels = () if layout == "prompt" else check_labels(train, validation, test)
    validation_source = data.validation or f"{data.validation_share:g} of {data.train}"
    report = DataReport(
        splits={
            "train": describe_split(train, data.train, train_empty),
            "validation": describe_split(validation, validation_source, validation_empty),
            "test": describe_split(test, data.test, test_empty),
        },
        labels=labels,
        repeats=repeats,
        deduplicated=data.deduplicate,
        dropped_rows=dropped,
        unused_rows=unused,
    )
    return PreparedData(train, validation, test, labels, report)


def _load(config: RunConfig, layout: Layout, split: str, location: str) -> tuple[Rows, int]:
    """The rows of a source that are not empty, and how many are."""
    data = config.data
    rows = load_rows(
        location, data.text_column, data.label_column, data.max_row_bytes, layout, data.prompt_column
    )
    kept = _keep(rows, lambda value: not is_empty(value))
    if not len(kept):
        raise DataError(
            "every text is empty", where=f"data.{split}: {location}", remedy="is data.text_column right?"
        )
    return kept, len(rows) - len(kept)


def _part(rows: Rows, wanted: int | None, seed: int) -> Rows:
    """A stratified, seeded part of `wanted` rows; all of them where none is wanted."""
    return rows if wanted is None else rows.select(stratified_sample(_strata(rows), wanted, seed))


def _strata(rows: Rows) -> list[str]:
    return [stratum(label) for label in rows.labels]


def _deduplicate(train: Rows, held_out: list[Rows]) -> Rows:
    """The first row of each text that no other split has."""
    keys = row_digests(train.inputs)
    _, first = np.unique(keys, return_index=True)
    first.sort()
    elsewhere = np.concatenate([row_digests(rows.inputs) for rows in held_out])
    kept = train.select(first[~np.isin(keys[first], elsewhere)])
    if not len(kept):
        raise DataError(
            "every training text also stands in test or validation",
            where="data.train",
            remedy="give other training rows, or set data.deduplicate to false",
        )
    return kept


def _keep(rows: Rows, wanted: Callable[[Any], bool]) -> Rows:
    found = np.fromiter(map(wanted, rows.inputs), bool, len(rows))
    return rows if found.all() else rows.select(np.flatnonzero(found))
