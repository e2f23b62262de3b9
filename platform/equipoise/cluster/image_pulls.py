"""Images that cannot be pulled: how long a cluster's pods have waited for theirs."""

from __future__ import annotations

import time
from typing import Any

from equipoise.cluster.reasons import pull_reason

Manifest = dict[str, Any]

GIVE_UP_S = 180.0
"""A registry that is down for a moment, or a push that is under way, is waited for so long."""


class ImagePulls:
    """What of jobs and services is waited for in vain, by this machine's clock."""

    def __init__(self) -> None:
        self._since: dict[str, float] = {}

    def given_up(self, name: str, pods: list[Manifest]) -> str:
        """Why waiting is over, once an image of the pods could not be pulled for `GIVE_UP_S`; else empty.

        Args:
            name: the job or service that the pods are of.
            pods: as they are now.
        """
        reason = pull_reason(pods)
        if not reason:
            self._since.pop(name, None)
            return ""
        waited_s = time.monotonic() - self._since.setdefault(name, time.monotonic())
        return (
            f"its image could not be pulled for {waited_s:.0f} s: {reason}" if waited_s >= GIVE_UP_S else ""
        )
