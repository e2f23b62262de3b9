"""What labels buy: points of the metric for a dollar of labels, and for a dollar of training on them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from equipoise.errors import InputError
from equipoise.runs.records import Figure, Record


class LearningPoint(Record):
    """The teacher, trained on some of the labels, on validation."""

    rows: int
    metric: Figure
    core_s: float
    """Core-seconds of its training."""


class LearningStep(Record):
    """From one point of a learning curve to the next."""

    rows_before: int
    rows: int
    points: float
    """Hundredths of the metric that were gained; negative where it fell."""
    label_usd: float
    compute_usd: float
    points_per_label_usd: float
    points_per_compute_usd: float | None
    """None where the further labels took no longer to train on."""


def learning_steps(
    points: Sequence[LearningPoint], *, usd_per_label: float, core_second_usd: float
) -> list[LearningStep]:
    """The steps between successive points.

    Args:
        points: by rows, ascending.
        usd_per_label: price of a label.
        core_second_usd: dollars of a core-second of the training node.

    Raises:
        InputError: the points do not rise in rows.
    """
    found = []
    for before, after in itertools.pairwise(points):
        if after.rows <= before.rows:
            raise InputError("points of a learning curve must rise in rows", value=after.rows)
        gained = 100 * (after.metric.value - before.metric.value)
        labels = (after.rows - before.rows) * usd_per_label
        compute = max(after.core_s - before.core_s, 0.0) * core_second_usd
        found.append(
            LearningStep(
                rows_before=before.rows,
                rows=after.rows,
                points=gained,
                label_usd=labels,
                compute_usd=compute,
                points_per_label_usd=gained / labels,
                points_per_compute_usd=gained / compute if compute > 0 else None,
            )
        )
    return found
