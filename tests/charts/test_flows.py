"""What a release lets flow: the network's ways in and out, and what Prometheus finds."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

Manifest = dict[str, Any]
Render = Callable[..., list[Manifest]]
Find = Callable[..., Manifest]


# Network


def policies(objects: list[Manifest]) -> dict[str, Manifest]:
    return {
        each["metadata"]["name"].removeprefix("eq-equipoise-"): each["spec"]
        for each in objects
        if each["kind"] == "NetworkPolicy"
    }


def selects(selector: Manifest, labels: Manifest) -> bool:
    expressions = selector.get("matchExpressions", [])
    return selector.get("matchLabels", {}).items() <= labels.items() and all(
        labels.get(each["key"]) in each["values"] for each in expressions if each["operator"] == "In"
    )


def opens(rule: Manifest, port: int) -> bool:
    return any(each["port"] <= port <= each.get("endPort", each["port"]) for each in rule["ports"])


def peers_of(objects: list[Manifest], component: str, port: int) -> list[Manifest]:
    """Who may reach a port of a component's pods."""
    labels = {
        "app.kubernetes.io/part-of": "equipoise",
        "app.kubernetes.io/instance": "eq",
        "app.kubernetes.io/component": component,
        "ray.io/node-type": "worker",
    }
    return [
        peer
        for policy in policies(objects).values()
        if selects(policy["podSelector"], labels)
        for rule in policy.get("ingress", [])
        if opens(rule, port)
        for peer in rule["from"]
    ]


@pytest.mark.parametrize("name", ["default", "kind", "s3", "gpu", "run"])
def test_every_pod_is_under_the_default_deny(
    render: Render, templates: Callable[[Manifest], list[Manifest]], name: str
) -> None:
    objects = render(name)
    [deny] = [
        each["spec"]
        for each in objects
        if each["kind"] == "NetworkPolicy" and each["metadata"]["name"].endswith("-default-deny")
    ]
    assert deny["policyTypes"] == ["Ingress", "Egress"]
    assert "ingress" not in deny
    assert "egress" not in deny
    for each in objects:
        for pod in templates(each):
            assert selects(deny["podSelector"], pod["metadata"]["labels"]), each["metadata"]["name"]


def component(peer: Manifest) -> str | None:
    labels = peer.get("podSelector", {}).get("matchLabels", {})
    found: str | None = labels.get("app.kubernetes.io/component")
    return found


def test_haproxys_own_ports_are_closed_to_everybody(render: Render) -> None:
    for port in (8404, 9101):
        assert peers_of(render(), "serving", port) == []
    for port in (6379, 8265, 10002, 30000, 40000):
        assert "serving" in [component(peer) for peer in peers_of(render(), "serving", port)]


def test_who_reaches_the_endpoint(render: Render) -> None:
    found = peers_of(render(), "serving", 8000)
    assert [component(peer) for peer in found if component(peer)] == ["serving", "test"]
    assert {"podSelector": {}} in found
    assert {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kuberay-operator"}}
    } in found
    assert len(found) == 4


def test_the_dashboard_is_reached_by_the_operator_alone(render: Render) -> None:
    found = peers_of(render(), "serving", 8265)
    others = [peer for peer in found if component(peer) != "serving"]
    assert others == [
        {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kuberay-operator"}}}
    ]


def test_job_clients_are_let_in_by_name(render: Render) -> None:
    found = peers_of(render("gpu"), "jobs", 8265)
    assert {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "notebooks"}}} in found


def test_the_autoscaler_of_a_head_asks_the_api_server_at_its_addresses_alone(render: Render) -> None:
    cidrs = ["10.96.0.1/32", "192.168.7.0/29"]
    value = f"networkPolicy.apiServerCidrs={json.dumps(cidrs)}"
    found = policies(render("s3", [value, 'fullnameOverride="eq-equipoise"', "jobs.enabled=true"]))
    rules = {name: policy for name, policy in found.items() if name.endswith("-autoscaler")}
    assert rules.keys() == {"serving-autoscaler", "jobs-autoscaler"}
    for policy in rules.values():
        assert policy["podSelector"]["matchLabels"]["ray.io/node-type"] == "head"
        [rule] = policy["egress"]
        assert rule["to"] == [{"ipBlock": {"cidr": cidr}} for cidr in cidrs]
        assert [each["port"] for each in rule["ports"]] == [443, 6443]
    # No other policy lets anybody there, and nobody is let out where nothing scales by itself.
    assert all(cidrs[0] not in str(policy) for name, policy in found.items() if name not in rules)
    assert not [name for name in policies(render("default", [value])) if name.endswith("-autoscaler")]


def test_every_flow_out_has_its_way_in(render: Render) -> None:
    """Where a policy lets pods of the release out to others of it, one lets them in there."""
    objects = render("run", ["serving.enabled=true", "jobs.enabled=true", "jobs.autoscaler.enabled=false"])
    for name, policy in policies(objects).items():
        sources = [
            source
            for source in ("serving", "jobs", "run", "submitter", "exporter", "test")
            if selects(
                policy["podSelector"],
                {
                    "app.kubernetes.io/part-of": "equipoise",
                    "app.kubernetes.io/instance": "eq",
                    "app.kubernetes.io/component": source,
                },
            )
        ]
        for rule in policy.get("egress", []):
            for peer in rule["to"]:
                target = component(peer)
                if target is None:
                    continue
                port = rule["ports"][0]["port"]
                allowed = [
                    found
                    for found in peers_of(objects, target, port)
                    if component(found) in sources or "matchExpressions" in found.get("podSelector", {})
                ]
                assert allowed, f"{name}: {sources} may go out to {target}:{port}, and nothing lets them in"


# Monitoring


def test_prometheus_objects_are_made_only_where_their_kinds_are_known(render: Render) -> None:
    kinds = {"PodMonitor", "ServiceMonitor", "PrometheusRule"}
    assert kinds <= {each["kind"] for each in render()}
    bare = render("default", kinds=("ray.io/v1/RayService",))
    assert not kinds & {each["kind"] for each in bare}


def test_the_monitors_find_their_pods_and_ports(
    render: Render, find: Find, templates: Callable[[Manifest], list[Manifest]]
) -> None:
    objects = render("gpu")
    pods = find(objects, "PodMonitor")["spec"]
    for kind in ("RayService", "RayCluster"):
        for pod in templates(find(objects, kind)):
            assert selects(pods["selector"], pod["metadata"]["labels"])
            ports = {port["name"] for port in pod["spec"]["containers"][0]["ports"]}
            assert pods["podMetricsEndpoints"][0]["port"] in ports
    monitor, service = find(objects, "ServiceMonitor")["spec"], find(objects, "Service", "exporter")
    assert selects(monitor["selector"], service["metadata"]["labels"])
    assert monitor["endpoints"][0]["port"] == service["spec"]["ports"][0]["name"]


def test_grafana_finds_the_dashboards_by_the_label_that_it_looks_for(render: Render) -> None:
    def boards(*values: str) -> list[Manifest]:
        return [each for each in render("default", values) if "-dashboard-" in each["metadata"]["name"]]

    assert len(boards()) == 2
    assert all(each["metadata"]["labels"]["grafana_dashboard"] == "1" for each in boards())
    other = boards('monitoring.dashboardLabel="example.com/board"')
    assert len(other) == 2
    for each in other:
        assert each["metadata"]["labels"]["example.com/board"] == "1"
        assert "grafana_dashboard" not in each["metadata"]["labels"]
    assert boards("monitoring.dashboards=false") == []
