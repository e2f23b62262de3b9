"""Every result on record as one Markdown table, each figure beside its goal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.record import RESULTS, Measured

from equipoise import hardware, storage

_HEAD = ("benchmark", "figure", "value", "goal", "value / goal", "")


def main() -> None:
    """Print the table and, below it, where each row comes from."""
    print(render(read_results()))


def read_results(folder: Path = RESULTS) -> dict[str, dict[str, Any]]:
    """The result records by benchmark name; empty where none was written."""
    names = [name for name in storage.list_files(str(folder)) if name.endswith(".json")]
    return {name.removesuffix(".json"): storage.read_json(str(folder / name)) for name in names}


def render(results: dict[str, dict[str, Any]]) -> str:
    """One row a figure, and one line a benchmark on machine, date, revision and command."""
    if not results:
        return "no results yet; `make bench` measures them"
    rows = [
        (name, *_cells(Measured(**figure)))
        for name, result in results.items()
        for figure in result["figures"]
    ]
    widths = [max(len(row[column]) for row in (_HEAD, *rows)) for column in range(len(_HEAD))]
    rule = tuple("-" * width for width in widths)
    table = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in (_HEAD, rule, *rows)
    ]
    return "\n".join([*table, "", *(_origin(name, result) for name, result in results.items())])


def _cells(figure: Measured) -> tuple[str, str, str, str, str]:
    bound = ">=" if figure.better == "higher" else "<="
    ratio = "" if figure.ratio is None else f"{figure.ratio:.2f}"
    verdict = "met" if figure.met else "short"
    return figure.name, f"{figure.value:.4g}", f"{bound} {figure.goal:.4g}", ratio, verdict


def _origin(name: str, result: dict[str, Any]) -> str:
    machine = {key: value for key, value in result["machine"].items() if key != "fingerprint"}
    return (
        f"{name}: {machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB "
        f"(fingerprint {hardware.fingerprint(machine)}), {result['date']}, "
        f"revision {result['revision']}, `{result['command']}`"
    )


if __name__ == "__main__":
    main()
