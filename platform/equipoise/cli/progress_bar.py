"""A progress bar with the time left, for commands of one kind of work."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

from equipoise.observability.progress import Board

_PLAIN_EVERY_S = 15.0
Tell = Callable[[str, int, int], None]


@contextlib.contextmanager
def open_progress(*, quiet: bool = False) -> Iterator[Tell]:
    """`tell(what, done, total)`: a live bar on a terminal's standard error, plain lines elsewhere.

    Of a total of 0, which stands for unknown, neither it nor the time left is told.
    """
    if quiet:
        yield lambda *_: None
        return
    if not sys.stderr.isatty():
        yield _plain()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        bars: dict[str, object] = {}

        def tell(what: str, done: int, total: int) -> None:
            if what not in bars:
                bars[what] = progress.add_task(what, total=total or None)
            progress.update(bars[what], completed=done, total=total or None)  # type: ignore[arg-type]

        yield tell


def _plain() -> Tell:
    """A line every quarter of a minute, with the time left."""
    last = time.monotonic()
    board = Board()

    def tell(what: str, done: int, total: int) -> None:
        nonlocal last
        board.tell(what, done, total, {})
        now = time.monotonic()
        if now - last < _PLAIN_EVERY_S or not done:
            return
        last = now
        left_s = board.read().left_s(time.time())
        left = "" if left_s is None else f" · {left_s:.0f} s left"
        sys.stderr.write(f"{what} {done:,}{f'/{total:,}' if total else ''}{left}\n")

    return tell
