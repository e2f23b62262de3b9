"""How Tune is told that a search is over, and who is told of each finished trial."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ray.tune import Callback, Stopper

from equipoise.runs import Candidate, RunFolder
from equipoise.search.limits import Limits, spent_usd


class Enough(Stopper):
    """Stops at a fault, and at the first limit that is reached.

    A trial that is under way is finished: its candidate is paid for by then.
    """

    def __init__(self, limits: Limits, folder: str) -> None:
        self.limits, self.folder = limits, folder
        self.measured: dict[str, Candidate] = {}
        self.failed = False
        self.reached = False

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        name = str(result.get("recipe_hash") or "")
        new = bool(name) and name not in self.measured
        if result.get("fault"):
            self.failed = True
        elif new or result.get("dropped"):
            run = RunFolder(self.folder)
            if new:
                self.measured[name] = Candidate.model_validate(run.read("candidates", f"{name}.json"))
            spent = spent_usd(run) if self.limits.search.max_usd is not None else 0.0
            self.reached = self.limits.reached(list(self.measured.values()), spent) is not None
        return False

    def stop_all(self) -> bool:
        return self.failed or self.reached


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
