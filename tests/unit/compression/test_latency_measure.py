from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from equipoise import hardware
from equipoise.compression.latency_measure import cached_table
from equipoise.compression.latency_table import LatencyTable
from equipoise.tasks.text_classification import TextClassification


@pytest.fixture
def table_of(
    tiny_classifier: Path,
    tiny_task: TextClassification,
    intent_rows: Callable[[int, int], list[tuple[str, str]]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Callable[..., LatencyTable]:
    """`table_of(engine, tell)`: the table of the tiny classifier, in a cache of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    texts = [text for text, _ in intent_rows(40, 5)]

    def build(engine: str, tell: Callable[[str, int, int], None]) -> LatencyTable:
        return cached_table(
            tiny_classifier, tiny_task, texts, [], engine=engine, precision="fp32", seed=1, tell=tell
        )

    return build


def test_a_table_is_measured_once_for_each_engine(table_of: Callable[..., LatencyTable]) -> None:
    told: list[tuple[str, int, int]] = []
    first = table_of("onnxruntime", lambda *step: told.append(step))
    assert [done for _, done, _ in told] == list(range(told[0][2]))
    # Half of the two heads; 64 neurons by shares, in steps of 8.
    assert set(first.heads_ms) == {1, 2}
    assert set(first.ffn_ms) == {8, 16, 24, 32, 48, 64}
    assert first.heads_ms[2] == first.ffn_ms[64] == 0
    assert first.layers == 2
    # A model this small takes about what the noise is: which of the two is faster says nothing.
    assert first.fastest_ms > 0
    assert 0 < first.whole_ms <= first.whole_p99_ms
    assert first.fingerprint == hardware.fingerprint(hardware.describe_hardware())
    told.clear()
    assert table_of("onnxruntime", lambda *step: told.append(step)) == first
    assert not told
    assert table_of("torch", lambda *step: told.append(step)).engine == "torch"
    assert told
