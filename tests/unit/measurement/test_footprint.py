"""Memory of a model in a process of its own: real ones, over a tiny model."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np

from equipoise.measurement.footprint import measure_peak_memory
from equipoise.tasks.text_classification import TextClassification

MIB = 2**20


def test_the_peak_is_that_of_a_process_of_its_own(
    tiny_task: TextClassification, tiny_classifier: Path
) -> None:
    own = np.ones(1024 * MIB // 8)  # What this process holds is none of the model's.
    batches = [["where is my parcel"] * 4, ["the invoice is wrong"]]
    peak = measure_peak_memory(tiny_task, "torch", "fp32", tiny_classifier, batches)
    assert peak is not None
    assert own.nbytes > peak > 100 * MIB


def test_a_model_that_cannot_be_opened_has_no_figure_and_the_log_says_why(
    tiny_task: TextClassification, tmp_path: Path, caplog: Any
) -> None:
    with caplog.at_level(logging.WARNING):
        assert measure_peak_memory(tiny_task, "openvino", "fp32", tmp_path / "absent", [["a"]]) is None
    assert "is not measured" in caplog.text
    assert "absent" in caplog.text
