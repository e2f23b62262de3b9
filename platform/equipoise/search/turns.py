"""Turns that the trials of one search take: at a structure, at training, at the measuring nodes."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

TRAINING, MEASURING = "training", "measuring"


class Keeper:
    """Counts who holds what; a Ray actor, and so one for all trials of a search.

    A holder that dies keeps its turn. With it the search ends, and the keeper too.

    Args:
        places: how many may hold a name at once; any other name is held by one.
    """

    def __init__(self, places: dict[str, int]) -> None:
        self._free: defaultdict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(1))
        self._free.update({name: asyncio.Semaphore(count) for name, count in places.items()})

    async def take(self, name: str) -> None:
        """Returns once the name is free; first come, first served."""
        await self._free[name].acquire()

    async def give(self, name: str) -> None:
        """Lets the next one have it."""
        self._free[name].release()


class Turns:
    """What a trial is handed to wait its turn; a search of one trial at a time needs no keeper."""

    def __init__(self, keeper: Any = None) -> None:
        self._keeper = keeper

    @contextlib.contextmanager
    def hold(self, name: str) -> Iterator[None]:
        """Wait for a name, and have it for the block.

        Time spent waiting is nobody's: blocks of the ledger begin inside.
        """
        if self._keeper is None:
            yield
            return
        import ray

        ray.get(self._keeper.take.remote(name))
        try:
            yield
        finally:
            ray.get(self._keeper.give.remote(name))


ALONE = Turns()
"""Of a search of one trial at a time."""


def open_turns(training: int, measuring: int) -> Turns:
    """Turns of several trials at once; the keeper runs where this process does, and ends with its job.

    Args:
        training: groups of workers that may train at once.
        measuring: nodes that may measure at once.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    options: dict[str, Any] = {"num_cpus": 0, "max_concurrency": 1000, "scheduling_strategy": here}
    keeper = ray.remote(**options)(Keeper)
    return Turns(keeper.remote({TRAINING: training, MEASURING: measuring}))
