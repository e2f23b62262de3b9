"""What a run was expected to take, and what it took: time by stage, and dollars."""

from __future__ import annotations

from typing import Any

from equipoise.report.markup import dollars, significant, table

_HEAD = ("stage", "estimated", "range", "actual", "off")
_TOTAL = "all stages"


def estimate_table(estimate: dict[str, Any], actual: dict[str, Any]) -> str:
    """From `estimate.json` and `actual.json`, either of which may be missing; nothing where both are."""
    if not (estimate or actual):
        return ""
    rows = [_row(name, expected, took, "s") for name, expected, took in _seconds(estimate, actual)]
    rows += [
        _row(f"{name} dollars", expected, took, "usd") for name, expected, took in _dollars(estimate, actual)
    ]
    basis = estimate.get("basis")
    caption = f"The estimate rests on {basis}." if basis else "There was no estimate when the run began."
    return table(_HEAD, rows, caption)


def _seconds(estimate: dict[str, Any], actual: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    expected, took = estimate.get("seconds", {}), actual.get("stages", {})
    stages = [(name, expected.get(name), took.get(name, {}).get("actual_s")) for name in expected or took]
    return [*stages, (_TOTAL, estimate.get("total_s"), actual.get("total", {}).get("actual_s"))]


def _dollars(estimate: dict[str, Any], actual: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    cost = actual.get("dollars", {})
    return [
        (name, estimate.get(f"{name}_usd"), cost.get(name, {}).get("actual_usd"))
        for name in ("training", "search", "node")
    ]


def _row(name: str, expected: dict[str, float] | None, took: float | None, unit: str) -> list[str]:
    def told(amount: float) -> str:
        return dollars(amount) if unit == "usd" else f"{significant(amount)} s"

    off = "–" if expected is None or took is None or not expected["value"] else took / expected["value"] - 1
    return [
        name,
        "–" if expected is None else told(expected["value"]),
        "–" if expected is None else f"{told(expected['low'])} to {told(expected['high'])}",
        "–" if took is None else told(took),
        off if isinstance(off, str) else f"{off:+.0%}",
    ]
