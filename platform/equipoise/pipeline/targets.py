"""Speed targets of recipes: their latency tables before the teacher is trained, their structures after it."""

from __future__ import annotations

from equipoise.compression.latency_table import Fitted
from equipoise.config import RunConfig
from equipoise.observability import progress
from equipoise.pipeline.preflight import Checked
from equipoise.pipeline.session import Session
from equipoise.placement import find_placement
from equipoise.ray_runtime import whole_node_cores
from equipoise.search.context import TrialContext
from equipoise.search.targets import FILE, Tables, choose_targets, measure_targets
from equipoise.tasks import find_task


def has_targets(config: RunConfig) -> bool:
    """Whether a recipe asks for a speed."""
    return any(step.prune and step.prune.timed for steps in config.compression.recipes for step in steps)


def table_targets(session: Session, checked: Checked) -> Tables:
    """The latency tables that the config's targets need, measured or read from the cache.

    Raises:
        ConfigError: a target beyond its table's end.
    """
    config = session.config
    if not has_targets(config) or session.run.has(FILE):
        return {}
    import ray

    task = find_task(config.task).create(checked.base, checked.data.labels, config.model)

    def measure() -> Tables:
        def tell(what: str, done: int, of: int) -> None:
            progress.tell(what, done, of, force=True)

        return measure_targets(config, checked.base, checked.data, task, tell)

    place = find_placement(config.search.serving_nodes)
    with session.ledger.meter("search", cores=place.measuring_cores, detail="latency tables"):
        tables: Tables = ray.get(ray.remote(**place.measuring_task(timed=True))(measure).remote())
    for table in {(table.engine, table.precision): table for table in tables.values()}.values():
        session.display.note(
            f"{table.engine} {table.precision}: {table.whole_ms:.2f} ms whole, {table.layer_ms:.2f} ms a "
            f"layer, {table.rest_ms:.2f} ms for the rest; up to "
            f"{table.whole_ms / table.fastest_ms:.1f} times as fast"
        )
    return tables


def fit_targets(session: Session, context: TrialContext, tables: Tables) -> dict[int, Fitted]:
    """The structure of each recipe with a target."""
    if not tables and not session.run.has(FILE):
        return {}
    with session.ledger.meter("search", cores=whole_node_cores(), detail="fit structures"):
        return choose_targets(context, tables)
