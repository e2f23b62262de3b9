"""Tokens in, text out: whole characters only, and never a part of a stop sequence."""

from __future__ import annotations

from collections.abc import Callable, Sequence

_INCOMPLETE = "\ufffd"


class TextStream:
    """The text of one answer, as its tokens come.

    Args:
        decode: text of some tokens.
        stops: texts that end the answer and are not in it.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str], stops: Sequence[str] = ()) -> None:
        self._decode = decode
        self._stops = stops
        self._ids: list[int] = []
        # Tokens before `_from` are done with; those from there to `_to` give the next ones context,
        # as some tokenizers drop a space at the very beginning.
        self._from = self._to = 0
        self._held = ""
        self.stopped = False
        """Whether a stop sequence was found; what comes after it is not looked at."""

    def push(self, token: int) -> str:
        """The text that is certain now."""
        if self.stopped:
            return ""
        self._ids.append(token)
        return self._release(self._new_text(whole=True))

    def finish(self) -> str:
        """What is left when no more tokens come."""
        if self.stopped:
            return ""
        text = self._release(self._new_text(whole=False))
        text, self._held = text + ("" if self.stopped else self._held), ""
        return text

    def _new_text(self, *, whole: bool) -> str:
        before = self._decode(self._ids[self._from : self._to])
        text = self._decode(self._ids[self._from :])
        if whole and text.endswith(_INCOMPLETE):
            return ""
        if len(text) > len(before):
            self._from, self._to = self._to, len(self._ids)
        return text[len(before) :]

    def _release(self, text: str) -> str:
        """Keep back an end that may be the beginning of a stop sequence."""
        self._held += text
        places = [place for stop in self._stops if (place := self._held.find(stop)) >= 0]
        if places:
            self.stopped = True
            found, self._held = self._held[: min(places)], ""
            return found
        kept = max((_overlap(self._held, stop) for stop in self._stops), default=0)
        cut = len(self._held) - kept
        found, self._held = self._held[:cut], self._held[cut:]
        return found


def _overlap(text: str, stop: str) -> int:
    """Characters at the end of `text` that `stop` begins with."""
    for count in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:count]):
            return count
    return 0
