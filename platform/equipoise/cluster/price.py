"""What a cluster costs while it is there, before it is asked for."""

from __future__ import annotations

from equipoise.cluster.fit import Request, requests
from equipoise.config import RunConfig
from equipoise.costs.price_book import PriceBook, load_prices, share_of_node
from equipoise.errors import ConfigError


def estimate_sentence(config: RunConfig) -> str:
    """The pods of a run's cluster and their dollars an hour, in one sentence.

    Raises:
        ConfigError: the price book cannot be read.
    """
    found = requests(config.cluster)
    pods = ", ".join(f"{request.count} {request.name} ({request.size} each)" for request in found)
    node = config.cost.training_node or config.cost.node
    try:
        usd = usd_per_hour(found, load_prices(config.cost), node)
    except ConfigError as error:
        return f"asks for {pods}; not priced: {error}"
    most = {group.name: group.max_workers for group in config.cluster.worker_groups}
    scaled = [
        Request(
            r.name, most.get(r.name, r.count), r.cpus, r.memory_gib, r.gpus, r.node_selector, r.tolerations
        )
        for r in found
    ]
    highest = usd_per_hour(scaled, load_prices(config.cost), node)
    above = f", up to ${highest:.4f} when scaled out" if highest > usd else ""
    return f"asks for {pods}: ${usd:.4f} an hour by the prices of {node}{above}"


def usd_per_hour(found: list[Request], book: PriceBook, node_name: str) -> float:
    """Dollars an hour of pods, each at its share of a node.

    Raises:
        ConfigError: the book has no such node, or the node no GPU where pods ask for some.
    """
    node = book.node(node_name, "cost.training_node")
    return sum(
        request.count
        * share_of_node(node, request.cpus, request.memory_gib, request.gpus)
        * node.usd_per_hour
        for request in found
    )
