"""When a search is over, and who is told of each finished trial."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from ray.tune import Callback, Stopper


class Enough(Stopper):
    """Stops at the wanted number of different candidates, at the deadline, or at a fault."""

    def __init__(self, wanted: int, deadline_s: float | None) -> None:
        self.wanted, self.deadline_s = wanted, deadline_s
        self.seen: set[str] = set()
        self.failed = False

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        if result.get("fault"):
            self.failed = True
        elif "recipe_hash" in result:
            self.seen.add(result["recipe_hash"])
        return False

    def stop_all(self) -> bool:
        late = self.deadline_s is not None and time.monotonic() > self.deadline_s
        return self.failed or late or len(self.seen) >= self.wanted


class Watch(Callback):
    """Tells a display of each candidate once, by its recipe hash."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self.tell = tell
        self.told: set[str] = set()

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles its callbacks to disk, and a terminal cannot be pickled."""
        return {}

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any
    ) -> None:
        name = result.get("recipe_hash")
        if name and name not in self.told:
            self.told.add(name)
            self.tell(name)
