"""The table of classes: recall and F1 of teacher and choice, so that no class is given up unseen."""

from __future__ import annotations

from equipoise.report.markup import signed, table
from equipoise.search.comparison import Comparison


def class_table(comparison: Comparison) -> str:
    """Every class, what the choice loses most of first."""
    rows = [
        (
            row.label,
            f"{row.places:,}",
            *(f"{value:.3f}" for value in (*row.recall, *row.f1)),
            signed(row.recall_difference),
            signed(row.f1_difference),
        )
        for row in comparison.classes
    ]
    head = (
        "class", "in the data", "recall, teacher", "recall, choice", "F1, teacher", "F1, choice",
        "recall, choice − teacher", "F1, choice − teacher",
    )  # fmt: skip
    caption = "Validation, classes that lose most F1 first; differences with paired 95% intervals."
    return table(head, rows, caption)
