"""Everything about a run that can be found wrong before anything is written or trained."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from pathlib import Path

from equipoise.config import RunConfig
from equipoise.costs.price_book import load_prices, replica_usd_per_hour, stale_note
from equipoise.costs.profiles import load_profile
from equipoise.data import PreparedData, prepare_data
from equipoise.errors import ConfigError, ServiceError
from equipoise.placement import check_slot, find_placement
from equipoise.ray_runtime import is_joined
from equipoise.runs import RunFolder
from equipoise.search.space import open_space
from equipoise.search.warm_start import earlier_recipes, serving_fingerprint
from equipoise.tasks import find_task
from equipoise.training.deepspeed_config import build_deepspeed_config, resolve_precision, resolve_workers
from equipoise.training.feasibility import check_feasible, check_recomputation
from equipoise.training.gguf import describe_conversion
from equipoise.training.guidance import check_guidance
from equipoise.training.initial_weights import check_weights
from equipoise.training.pretrained import resolve_pretrained


@dataclass(frozen=True)
class Checked:
    """A run that can start: its data, its base model, and what a person should know."""

    data: PreparedData
    base: Path
    sentences: list[str]


def check_run(config: RunConfig, run: RunFolder) -> Checked:
    """Check prices, task, batch, space, model, run folder and data; starts and writes nothing.

    Raises:
        EquipoiseError: the first thing found wrong.
    """
    run.local()
    task = find_task(config.task)
    prices = load_prices(config.cost)
    replica_usd_per_hour(prices, config.cost)
    load_profile(config.cost.profile)
    prices.node(config.cost.training_node or config.cost.node, "cost.training_node")
    check_feasible(config.training)
    workers = resolve_workers(config.training)
    build_deepspeed_config(
        config.training, workers=workers, total_steps=100, learning_rate=config.training.learning_rate
    )
    if config.distillation.generated_tokens is not None and task.layout != "prompt":
        raise ConfigError(
            "only a language model writes text",
            where="distillation.generated_tokens",
            value=config.distillation.generated_tokens,
            remedy="leave it out",
        )
    base = resolve_pretrained(config.model, task.files)
    check_recomputation(config.training, base, task.model_class)
    check_guidance(config.distillation, base, task.model_class)
    space = open_space(config, base, task.layout, task.model_class)
    # Of a cluster's serving hardware nothing is known before it is joined: see `check_cluster`.
    timed_on = None if is_joined() else serving_fingerprint(config)
    earlier_recipes(config.search.warm_start, task=config.task, fingerprint=timed_on)
    data = prepare_data(config, task.layout)
    check_weights(base, task.model_class, len(data.labels) or None)
    sentences = data.report.sentences()
    converted = describe_conversion(base)
    if converted:
        sentences.append(converted)
    stale = stale_note(prices)
    if stale:
        sentences.append(f"{stale}.")
    if config.cost.replica_cores != config.serving.cores_per_replica:
        sentences.append(
            f"A replica is priced at {config.cost.replica_cores:g} cores (cost.replica_cores) and gets "
            f"{config.serving.cores_per_replica} (serving.cores_per_replica): what is metered will differ."
        )
    sentences.append(
        f"{min(config.search.trials, space.size)} of {space.size} recipes will be measured; training takes "
        f"{workers} workers in {resolve_precision(config.training)}, ZeRO stage {config.training.zero_stage}."
    )
    return Checked(data, base, sentences)


def check_cluster(config: RunConfig, *, timed: bool = True, served: bool = True) -> None:
    """Check what only a cluster that was joined can tell, before anything is trained on it.

    Args:
        timed: something will be, for which a node has to offer the slot.
        served: the choice will be, for its test.

    Raises:
        ConfigError: no node is serving hardware or can be timed on, or an earlier run was measured on
            other hardware.
        ServiceError: the cluster serves applications already.
    """
    find_placement(config.search.serving_nodes)
    # Where nodes come as they are asked for, none may be up yet.
    if timed and not config.cluster.autoscaling:
        check_slot()
    if served and is_joined():
        # Serve reads its flags from the environment when it is imported: not before Ray was started.
        from equipoise.pipeline.served import trial_app
        from equipoise_serving.endpoint import check_vacant

        check_vacant(trial_app(config))
    if config.search.warm_start:
        earlier_recipes(config.search.warm_start, task=config.task, fingerprint=serving_fingerprint(config))


def check_port(host: str, port: int, field: str) -> None:
    """Raise ServiceError unless a port is free, before hours are spent on the way to it."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ServiceError(
                f"cannot be listened on: {error.strerror or error}",
                where=f"{host}:{port}",
                remedy=f"stop what listens there, or choose another {field}",
            ) from error
