from __future__ import annotations

from collections.abc import Callable

from equipoise.cluster.fit import requests
from equipoise.cluster.price import estimate_sentence, usd_per_hour
from equipoise.config import RunConfig
from equipoise.costs.price_book import load_prices


def test_pods_cost_their_share_of_a_node(sample_run: Callable[..., RunConfig]) -> None:
    groups = [{"cpus": 4, "memory_gib": 2, "min_workers": 3, "max_workers": 5}]
    cluster = {"head": {"cpus": 2, "memory_gib": 1}, "worker_groups": groups}
    config = sample_run(cluster=cluster, cost={"node": "aws/c7a.xlarge"})
    book = load_prices(config.cost)
    node = book.node("aws/c7a.xlarge")
    expected = (2 + 3 * 4) / node.vcpus * node.usd_per_hour
    assert abs(usd_per_hour(requests(config.cluster), book, "aws/c7a.xlarge") - expected) < 1e-12
    sentence = estimate_sentence(config)
    assert f"${expected:.4f} an hour" in sentence
    assert f"up to ${(2 + 5 * 4) / node.vcpus * node.usd_per_hour:.4f}" in sentence


def test_what_cannot_be_priced_is_said_and_stops_nothing(sample_run: Callable[..., RunConfig]) -> None:
    config = sample_run(cluster={"worker_groups": [{"gpus": 8}]}, cost={"node": "aws/c7a.xlarge"})
    assert "not priced" in estimate_sentence(config)
