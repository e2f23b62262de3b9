"""What a run folder keeps, metered: one line an artefact, each going on where its last one ended."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from equipoise import storage
from equipoise.costs.ledger_lines import ResourceType, storage_line
from equipoise.costs.ledger_table import read_table
from equipoise.costs.ledger_writer import LedgerWriter
from equipoise.runs import LedgerLine, RunFolder

_CACHE = "teacher/outputs"


def stored_lines(run: RunFolder, writer: LedgerWriter) -> Iterator[LedgerLine]:
    """Storage lines from the end of each artefact's last one, or its own beginning, until now.

    Bytes count as they are now for the whole stretch since the last line: artefacts are written
    once. What is on no local disk is left out, for its store bills it.
    """
    if storage.is_uri(run.location):
        return
    root, now = Path(run.location), writer.clock()
    table = read_table(run)
    stored = table.is_text("unit", "GB-months")
    nodes = table.start[table.is_text("kind", "node")]
    # A file that was copied in may be older than the run.
    begun = float(nodes.min()) / 1e6 if len(nodes) else now
    for name, kind in _artefacts(root):
        own = np.flatnonzero(stored & table.is_text("resource_id", name))
        since = float(table.stop[own].max()) / 1e6 if len(own) else max(begun, _begun(root / name))
        if since < now:
            yield storage_line(
                run_id=writer.run_id,
                book=writer.book,
                stored_bytes=_bytes(root, name),
                start=since,
                stop=now,
                resource_id=name,
                resource_type=kind,
            )


def _artefacts(root: Path) -> Iterator[tuple[str, ResourceType]]:
    for name in ("teacher", "bundle"):
        if (root / name).is_dir():
            yield name, "artefact"
    if (root / _CACHE).is_dir():
        yield _CACHE, "cache"
    for group in ("students", "models"):
        if (root / group).is_dir():
            for folder in sorted((root / group).iterdir()):
                if folder.is_dir() and not folder.name.startswith("."):
                    yield f"{group}/{folder.name}", "artefact"


def _bytes(root: Path, name: str) -> int:
    """Bytes of an artefact without those of the cache inside it."""
    found = storage.folder_bytes(root / name)
    if name == "teacher" and (root / _CACHE).is_dir():
        found -= storage.folder_bytes(root / _CACHE)
    return found


def _begun(folder: Path) -> float:
    """Seconds since the epoch of the artefact's oldest file."""
    times = [file.stat().st_mtime for file in folder.rglob("*") if file.is_file()]
    return min(times, default=folder.stat().st_mtime)
