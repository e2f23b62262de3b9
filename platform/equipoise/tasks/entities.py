"""Entities from tags, read as the CoNLL evaluation reads them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from equipoise.data import OUTSIDE


class Entity(NamedTuple):
    """A kind, and the words from `start` to before `stop`."""

    kind: str
    start: int
    stop: int


def find_entities(tags: Sequence[str]) -> list[Entity]:
    """Entities of one sentence's IOB2 tags, in order.

    As in the CoNLL evaluation (Tjong Kim Sang and De Meulder, 2003), an `I-` tag that follows no tag
    of its kind starts an entity. A tag without a prefix is an entity of one kind.
    """
    found: list[Entity] = []
    kind, start = "", 0
    for place, tag in enumerate((*tags, OUTSIDE)):
        prefix, _, name = tag.partition("-") if "-" in tag else ("I", "", tag)
        outside = tag == OUTSIDE
        if kind and (outside or prefix == "B" or name != kind):
            found.append(Entity(kind, start, place))
            kind = ""
        if not outside and not kind:
            kind, start = name, place
    return found
