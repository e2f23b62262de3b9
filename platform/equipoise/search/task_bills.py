"""Puts the Ray tasks of a metered block on the ledger, a line each."""

from __future__ import annotations

from collections.abc import Callable

from equipoise.costs.ledger_writer import Block, LedgerWriter
from equipoise.training.teacher_outputs import TaskUse


def bill_tasks(
    ledger: LedgerWriter, block: Block, component: str, resource_id: str, detail: str
) -> Callable[[TaskUse], None]:
    """What a function that runs tasks is handed as `on_task`: their lines take the place of the block's."""

    def bill(use: TaskUse) -> None:
        block.parts.append(
            ledger.usage(
                component,
                use.start,
                use.stop,
                cores=1,
                gpus=use.gpus,
                used_core_seconds=use.cpu_s,
                detail=detail,
                resource_type="task",
                resource_id=f"{resource_id}/{len(block.parts)}",
            )
        )

    return bill
