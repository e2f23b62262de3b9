"""The price book of a run: the shipped prices, the user's laid over them, and what follows from them."""

from __future__ import annotations

import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from equipoise.config.cost import CostConfig
from equipoise.config.load import read_yaml, validate_config
from equipoise.costs.prices import NodePrice, Price, PriceBook
from equipoise.errors import ConfigError

__all__ = [
    "NodePrice",
    "PriceBook",
    "core_second_usd",
    "load_prices",
    "node_usd_per_hour",
    "replica_share",
    "replica_usd_per_hour",
    "share_of_node",
    "stale_prices",
]

STALE_AFTER_DAYS = 365

_SHIPPED = Path(__file__).with_name("prices.yaml")
_GROUPS = ("nodes", "storage")
_SINGLES = ("label", "engineer")


def load_prices(cost: CostConfig) -> PriceBook:
    """The shipped price book, with the user's (`cost.prices`) laid over it key by key.

    An entry that overrides a figure without a source of its own is marked as from the user's file,
    with no date, so that no figure carries another's provenance.

    Raises:
        ConfigError: the user's book cannot be read, or has an unknown key, a price that is not
            positive, or another currency than USD.
    """
    if cost.prices is None:
        return _shipped_book()
    if not Path(cost.prices).is_file():
        raise ConfigError(
            "no such price book", where=cost.prices, remedy="correct cost.prices, or leave it out"
        )
    own = read_yaml(cost.prices)
    merged = _merge(read_yaml(_SHIPPED), _with_provenance(own, cost.prices))
    return validate_config(PriceBook, merged, where=cost.prices)


def share_of_node(node: NodePrice, cores: float, memory_gib: float, gpus: float = 0) -> float:
    """The part of a node that a reservation takes: the largest of its CPU, memory and GPU shares.

    Above 1 means that it does not fit.

    Raises:
        ConfigError: GPUs are asked of a node that has none.
    """
    if gpus > 0 and node.gpus == 0:
        raise ConfigError("the node has no GPU", value=gpus, remedy="choose a node with GPUs")
    gpu_share = gpus / node.gpus if gpus > 0 else 0.0
    return max(cores / node.vcpus, memory_gib / node.memory_gib, gpu_share)


def node_usd_per_hour(book: PriceBook, cost: CostConfig) -> float:
    """Dollars an hour of the serving node: its spot price where `cost.spot` says so.

    Raises:
        ConfigError: the node is unknown, or has no spot price.
    """
    node = book.node(cost.node, "cost.node")
    if not cost.spot:
        return node.usd_per_hour
    if node.spot_usd_per_hour is None:
        raise ConfigError(
            "has no spot price in the book",
            where="cost.node",
            value=cost.node,
            remedy="add spot_usd_per_hour to a book of your own, or leave cost.spot out",
        )
    return node.spot_usd_per_hour


def replica_share(book: PriceBook, cost: CostConfig) -> float:
    """The part of the serving node that one replica takes; at most 1.

    Raises:
        ConfigError: the node is unknown or has no GPU, or a replica is larger than it.
    """
    node = book.node(cost.node, "cost.node")
    share = share_of_node(node, cost.replica_cores, cost.replica_memory_gib, cost.replica_gpus)
    if share > 1:
        gpus = f", {cost.replica_gpus:g} GPUs" if cost.replica_gpus else ""
        raise ConfigError(
            f"a replica of {cost.replica_cores:g} cores and {cost.replica_memory_gib:g} GiB{gpus} does not "
            f"fit on {cost.node} ({node.vcpus:g} cores, {node.memory_gib:g} GiB, {node.gpus} GPUs)",
            where="cost.node",
            remedy="choose a larger node, or smaller cost.replica_cores and cost.replica_memory_gib",
        )
    return share


def replica_usd_per_hour(book: PriceBook, cost: CostConfig) -> float:
    """Dollars an hour of one serving replica: its share of the serving node.

    Raises:
        ConfigError: the node is unknown, or a replica is larger than it.
    """
    return replica_share(book, cost) * node_usd_per_hour(book, cost)


def core_second_usd(book: PriceBook, node_name: str) -> float:
    """Dollars per second of one core of a node, on demand.

    Raises:
        ConfigError: the book has no such node.
    """
    node = book.node(node_name)
    return node.usd_per_hour / node.vcpus / 3600


def stale_prices(book: PriceBook, today: datetime.date | None = None) -> dict[str, int]:
    """Entries whose figure was read more than a year ago, with their age in days, oldest first."""
    today = today or datetime.datetime.now(tz=datetime.UTC).date()
    entries: dict[str, Price] = {
        **{f"nodes.{name}": price for name, price in book.nodes.items()},
        **{f"storage.{name}": price for name, price in book.storage.items()},
        "label": book.label,
        "engineer": book.engineer,
    }
    ages = {name: (today - price.date).days for name, price in entries.items() if price.date is not None}
    old = {name: days for name, days in ages.items() if days > STALE_AFTER_DAYS}
    return dict(sorted(old.items(), key=lambda entry: (-entry[1], entry[0])))


def stale_note(book: PriceBook) -> str | None:
    """One sentence where prices are over a year old; None where none is."""
    stale = stale_prices(book)
    if not stale:
        return None
    name, days = next(iter(stale.items()))
    return f"{len(stale)} price{'' if len(stale) == 1 else 's'} over a year old, such as {name} ({days} days)"


@lru_cache(maxsize=1)
def _shipped_book() -> PriceBook:
    return validate_config(PriceBook, read_yaml(_SHIPPED), where=str(_SHIPPED))


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        held = merged.get(key)
        if isinstance(held, dict) and isinstance(value, dict):
            merged[key] = _merge(held, value)
        else:
            merged[key] = value
    return merged


def _with_provenance(own: dict[str, Any], path: str) -> dict[str, Any]:
    """The user's book, every entry of it with a source."""
    marked = dict(own)
    for group in _GROUPS:
        if isinstance(own.get(group), dict):
            marked[group] = {name: _mark(entry, path) for name, entry in own[group].items()}
    for single in _SINGLES:
        if single in own:
            marked[single] = _mark(own[single], path)
    return marked


def _mark(entry: Any, path: str) -> Any:
    if not isinstance(entry, dict) or "source" in entry:
        return entry
    return {"date": None, **entry, "source": path}
