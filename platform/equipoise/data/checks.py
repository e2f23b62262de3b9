"""What was found in the data: counts, repeats, leaks, hashes; and the faults no run should start with."""

from __future__ import annotations

import hashlib
import json
from collections import Counter

import numpy as np

from equipoise.data.layout import label_names, row_digests, row_key, row_length
from equipoise.data.rows import Rows
from equipoise.errors import DataError
from equipoise.runs.records import Record

_PERCENTILES = (5, 50, 95, 99, 100)


class SplitReport(Record):
    """One split as the run uses it."""

    source: str
    rows: int
    empty_texts: int
    """Rows of the source that were dropped because their text is empty."""
    label_counts: dict[str, int]
    imbalance_ratio: float
    """Rows of the largest class over those of the smallest that has any."""
    length_percentiles: dict[str, int]
    """Characters a text, words a sentence or pixels an image, by percentile (`p5` to `p100`)."""
    sha256: str
    """Of the inputs and labels in order."""


class Repeats(Record):
    """Repeated texts, as they were found before any was dropped; rows are counted, by exact text."""

    duplicates_in_train: int
    """Training rows whose text stands earlier in train."""
    conflicting_duplicates: int
    """Training rows whose text stands in train with another label too."""
    test_leakage: int
    """Test rows whose text also stands in train."""
    validation_leakage: int
    """Validation rows whose text also stands in train."""
    validation_in_test: int
    """Validation rows whose text also stands in test."""


class DataReport(Record):
    """`data.json`: what was found in the data and what the run uses of it."""

    splits: dict[str, SplitReport]
    """By `train`, `validation` and `test`."""
    labels: tuple[str, ...]
    repeats: Repeats
    deduplicated: bool
    dropped_rows: int
    """Training rows dropped as repeats or because their text stands in test or validation."""
    unused_rows: int
    """Training rows left out by `data.train_rows`."""

    def sentences(self) -> list[str]:
        """The report in words, one statement each."""
        sizes = ", ".join(f"{part.rows:,} {name}" for name, part in self.splits.items())
        train, repeats = self.splits["train"], self.repeats
        lengths = train.length_percentiles
        classes = [
            f"The largest class has {train.imbalance_ratio:.1f} times the training rows of the smallest."
        ]
        found = [
            f"{sizes} rows; {len(self.labels) or 'no'} labels.",
            *(classes if self.labels else ()),
            f"Half of the training texts have {lengths['p50']:,} characters or fewer, "
            f"95% have {lengths['p95']:,} or fewer.",
        ]
        fate = "dropped" if self.deduplicated else "kept"
        found += [
            f"{part.empty_texts:,} {name} rows have an empty text and were dropped."
            for name, part in self.splits.items()
            if part.empty_texts
        ]
        counts = (
            (repeats.duplicates_in_train, f"training rows repeat an earlier text: {fate}."),
            (repeats.conflicting_duplicates, "training rows share a text with a row of another label."),
            (repeats.test_leakage, f"test rows also stand in train: there they were {fate}."),
            (repeats.validation_leakage, f"validation rows also stand in train: there they were {fate}."),
            (repeats.validation_in_test, "validation rows also stand in test; the choice has seen them."),
            (self.unused_rows, "training rows are left out by data.train_rows."),
            (sum(count == 1 for count in train.label_counts.values()), "labels have one training row only."),
        )
        return found + [f"{count:,} {what}" for count, what in counts if count]


def describe_split(rows: Rows, source: str, empty_texts: int) -> SplitReport:
    """Count and hash one split of at least one row."""
    counts = Counter(name for label in rows.labels for name in label_names(label) if name)
    sizes = np.fromiter(map(row_length, rows.inputs), np.int64, len(rows))
    lengths = np.percentile(sizes, _PERCENTILES, method="higher")
    return SplitReport(
        source=source,
        rows=len(rows),
        empty_texts=empty_texts,
        label_counts=dict(sorted(counts.items())),
        imbalance_ratio=max(counts.values()) / min(counts.values()) if counts else 1.0,
        length_percentiles={f"p{p}": int(v) for p, v in zip(_PERCENTILES, lengths, strict=True)},
        sha256=hash_rows(rows),
    )


def hash_rows(rows: Rows) -> str:
    """Hex SHA-256 over the inputs and labels, in order."""
    digest = hashlib.sha256()
    for value, label in zip(rows.inputs, rows.labels, strict=True):
        digest.update(json.dumps((row_key(value), label)).encode() + b"\n")
    return digest.hexdigest()


def find_repeats(train: Rows, validation: Rows | None, test: Rows) -> Repeats:
    """Count repeated texts within and between the splits as given."""
    keys = row_digests(train.inputs)
    own, first, number, times = np.unique(keys, return_index=True, return_inverse=True, return_counts=True)
    kinds = row_digests("\x00".join(label_names(label)) for label in train.labels)
    # A text is in conflict if one of its rows has another label than the first of them.
    differs = np.bincount(number, kinds != kinds[first][number], minlength=len(own)) > 0
    held_out = row_digests(validation.inputs if validation else ())
    tested = row_digests(test.inputs)
    return Repeats(
        duplicates_in_train=len(keys) - len(own),
        conflicting_duplicates=int(times[differs].sum()),
        test_leakage=int(np.isin(tested, own).sum()),
        validation_leakage=int(np.isin(held_out, own).sum()),
        validation_in_test=int(np.isin(held_out, tested).sum()),
    )


def check_labels(train: Rows, validation: Rows, test: Rows) -> tuple[str, ...]:
    """The labels, sorted.

    Raises:
        DataError: train has one class only, or lacks a label that validation or test has.
    """
    known = {name for label in train.labels for name in label_names(label)}
    if len(known) < 2:
        raise DataError(
            "train has one class only",
            where="data.train",
            value=next(iter(known), None),
            remedy="a classifier needs rows of two classes or more; is data.label_column right?",
        )
    for split, rows in (("validation", validation), ("test", test)):
        unknown = sorted({name for label in rows.labels for name in label_names(label)} - known)
        if unknown:
            named = ", ".join(map(repr, unknown[:10])) + (" and more" if len(unknown) > 10 else "")
            raise DataError(
                f"{len(unknown)} of its labels have no training row: {named}",
                where=f"data.{split}",
                remedy="add training rows for them (or raise data.train_rows), or remove those rows",
            )
    return tuple(sorted(known))
