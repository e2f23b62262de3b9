"""How Tune is told of a fault, and who is told of each finished trial."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ray.tune import Callback, Stopper


class Fault(Stopper):
    """Stops everything at the first trial that reports a fault; limits are the plan's affair."""

    def __init__(self) -> None:
        self.failed = False

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        self.failed = self.failed or bool(result.get("fault"))
        return False

    def stop_all(self) -> bool:
        return self.failed


class Watch(Callback):
    """Tells a display of each candidate once, by its recipe hash, and of each recipe that was dropped."""

    def __init__(self, tell: Callable[[str], None], tell_dropped: Callable[[str], None]) -> None:
        self.tell, self.tell_dropped = tell, tell_dropped
        self.told: set[str] = set()

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles its callbacks to disk, and a terminal cannot be pickled."""
        return {}

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any
    ) -> None:
        for key, tell in (("recipe_hash", self.tell), ("dropped", self.tell_dropped)):
            name = result.get(key)
            if name and name not in self.told:
                self.told.add(name)
                tell(name)
