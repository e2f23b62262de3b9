from __future__ import annotations

from pathlib import Path

from benchmarks.record import Measured, Provenance, write_result
from benchmarks.table import read_results, render

PROVENANCE = Provenance(
    {"cpu": "Some CPU", "cores": 2, "memory_gib": 8.0}, "2026-01-02T03:04:05+00:00", "0.1.0+abc"
)


def write(folder: Path) -> None:
    write_result("b", "python -m b", [Measured("few", 0, 0, "lower")], PROVENANCE, folder)
    figures = [Measured("many", 14, 12, "higher"), Measured("cost", 0.25, 0.125, "lower")]
    write_result("a", "python -m a", figures, PROVENANCE, folder)


def cells(row: str) -> list[str]:
    return [cell.strip() for cell in row.strip("|").split("|")]


def test_every_figure_has_a_row_with_its_verdict(tmp_path: Path) -> None:
    write(tmp_path)
    rows = [cells(line) for line in render(read_results(tmp_path)).splitlines() if line.startswith("|")]
    assert rows[2:] == [
        ["a", "many", "14", ">= 12", "1.17", "met"],
        ["a", "cost", "0.25", "<= 0.125", "2.00", "short"],
        ["b", "few", "0", "<= 0", "", "met"],
    ]


def test_the_columns_line_up(tmp_path: Path) -> None:
    write(tmp_path)
    lines = [line for line in render(read_results(tmp_path)).splitlines() if line.startswith("|")]
    assert len({len(line) for line in lines}) == 1
    assert set(lines[1]) <= set("|- ")


def test_each_benchmark_says_where_it_was_measured(tmp_path: Path) -> None:
    write(tmp_path)
    origins = [line for line in render(read_results(tmp_path)).splitlines() if line.startswith(("a:", "b:"))]
    assert len(origins) == 2
    for part in ("Some CPU, 2 cores, 8.0 GiB", "2026-01-02T03:04:05+00:00", "0.1.0+abc", "`python -m a`"):
        assert part in origins[0]


def test_the_same_machine_has_one_fingerprint_with_or_without_it_on_record(tmp_path: Path) -> None:
    marked = Provenance({**PROVENANCE.machine, "fingerprint": "of a candidate"}, "now", "0")
    write_result("a", "", [], marked, tmp_path)
    write_result("b", "", [], PROVENANCE, tmp_path)
    first, second = render(read_results(tmp_path)).splitlines()[-2:]
    assert first.partition("fingerprint ")[2][:12] == second.partition("fingerprint ")[2][:12]


def test_no_results_are_said_to_be_none(tmp_path: Path) -> None:
    assert "no results" in render(read_results(tmp_path / "absent"))
