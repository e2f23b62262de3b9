from __future__ import annotations

import datetime
import pathlib
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from equipoise.config.cost import CostConfig
from equipoise.costs.price_book import (
    NodePrice,
    core_second_usd,
    load_prices,
    replica_usd_per_hour,
    share_of_node,
    stale_prices,
)
from equipoise.errors import ConfigError

SHIPPED = load_prices(CostConfig())


OWN = "{purchase_usd: 8760, life_years: 4, power_watts: 500, usd_per_kwh: 0.2}"


def write_book(folder: pathlib.Path, text: str) -> CostConfig:
    path = folder / "prices.yaml"
    path.write_text(text)
    return CostConfig(prices=str(path))


def test_every_shipped_figure_names_its_source() -> None:
    entries = [*SHIPPED.nodes.values(), *SHIPPED.storage.values()]

    assert all(entry.source and entry.date and entry.region for entry in entries)
    assert "override" in SHIPPED.label.source
    assert "override" in SHIPPED.engineer.source


def test_the_default_node_is_in_the_shipped_book() -> None:
    cost = CostConfig()

    assert SHIPPED.node(cost.node).vcpus == 2
    assert replica_usd_per_hour(SHIPPED, cost) == pytest.approx(0.08925 / 2)


def test_an_unknown_node_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"did you mean 'aws/c7i\.large'"):
        SHIPPED.node("aws/c7i.larg")


def test_an_unknown_node_without_a_near_one_lists_the_known() -> None:
    with pytest.raises(ConfigError, match=r"known: aws/"):
        SHIPPED.node("zzz")


def test_a_users_book_overrides_by_key_and_keeps_the_rest(tmp_path: pathlib.Path) -> None:
    cost = write_book(tmp_path, "nodes: {aws/c7i.large: {usd_per_hour: 0.05}}\n")
    book = load_prices(cost)

    assert book.node("aws/c7i.large").usd_per_hour == 0.05
    assert book.node("aws/c7i.large").memory_gib == 4
    assert book.node("aws/g5.xlarge") == SHIPPED.node("aws/g5.xlarge")


def test_an_overridden_figure_does_not_keep_the_shipped_provenance(tmp_path: pathlib.Path) -> None:
    cost = write_book(tmp_path, "label: {usd_per_label: 2}\nnodes: {aws/c7i.large: {usd_per_hour: 0.05}}\n")
    book = load_prices(cost)

    assert book.node("aws/c7i.large").source == cost.prices
    assert book.node("aws/c7i.large").date is None
    assert book.label.source == cost.prices


def test_a_users_book_may_give_sources_and_nodes_of_its_own(tmp_path: pathlib.Path) -> None:
    cost = write_book(
        tmp_path,
        "nodes:\n"
        "  lab/box: {vcpus: 8, memory_gib: 32, usd_per_hour: 0.2, source: invoice, date: 2026-01-02}\n",
    )
    node = load_prices(cost).node("lab/box")

    assert node.source == "invoice"
    assert node.date == datetime.date(2026, 1, 2)


def test_own_hardware_costs_its_price_over_its_life_and_its_power(tmp_path: pathlib.Path) -> None:
    cost = write_book(tmp_path, f"nodes: {{mine/box: {{vcpus: 64, memory_gib: 256, own: {OWN}}}}}\n")
    node = load_prices(cost).node("mine/box")

    # 8,760 dollars over 4 years of 8,760 hours, and half a kilowatt at 20 cents.
    assert node.usd_per_hour == pytest.approx(0.25 + 0.1)
    assert node.source == cost.prices


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("currency: EUR\n", r"currency: wrong value .*USD"),
        ("nodes: {aws/c7i.large: {usd_per_hour: 0}}\n", r"usd_per_hour: wrong value .*greater than 0"),
        ("nodes: {aws/c7i.large: {usd_per_hour: -1}}\n", r"greater than 0"),
        ("nodes: {aws/c7i.large: {usd_per_hour: .nan}}\n", r"usd_per_hour"),
        ("nodes: {aws/c7i.large: {usd_per_hour: .inf}}\n", r"usd_per_hour"),
        ("nodes: {aws/c7i.large: {usd_hour: 1}}\n", r"unknown key"),
        ("nodes: {lab/box: {vcpus: 8}}\n", r"required key is missing"),
        ("nodes: {aws/c7i.large: {currency: EUR, usd_per_hour: 1}}\n", r"currency: wrong value .*USD"),
        (
            "nodes: {mine/box: {vcpus: 8, memory_gib: 9, own: {purchase_usd: 1}}}\n",
            r"own\.life_years: required",
        ),
        ("nodes: {aws/c7i.large: {own: " + OWN + "}}\n", r"give either a price an hour, or what owning"),
        ("nodes: {mine/box: {vcpus: 8, memory_gib: 9, own: {life_years: -1}}}\n", r"box\.own\.purchase_usd"),
        ("nodes: 3\n", r"nodes: wrong value"),
        ("label: 3\n", r"label: wrong value"),
        ("storage_class: gcp/none\n", r"storage_class must be one of aws/s3-standard"),
        ("nodez: {}\n", r"did you mean 'nodes'"),
        ("- 1\n", r"not a mapping"),
        ("a: [\n", r"not valid YAML"),
    ],
)
def test_a_wrong_book_is_one_line(tmp_path: pathlib.Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load_prices(write_book(tmp_path, text))

    assert "\n" not in str(caught.value)
    assert caught.value.exit_status == 2


def test_an_absent_book_names_the_setting(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ConfigError, match=r"no such price book.*cost\.prices"):
        load_prices(CostConfig(prices=str(tmp_path / "none.yaml")))


def test_a_replica_larger_than_its_node_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"cost\.node: a replica of 1 cores and 6 GiB does not fit"):
        replica_usd_per_hour(SHIPPED, CostConfig(replica_memory_gib=6))


def test_the_largest_share_counts() -> None:
    node = NodePrice(source="x", vcpus=4, memory_gib=16, gpus=2, usd_per_hour=1)

    assert share_of_node(node, 1, 8) == 0.5
    assert share_of_node(node, 3, 4) == 0.75
    assert share_of_node(node, 1, 1, gpus=2) == 1


def test_gpus_on_a_node_without_any_are_refused() -> None:
    with pytest.raises(ConfigError, match="has no GPU"):
        share_of_node(SHIPPED.node("aws/c7i.large"), 1, 1, gpus=1)


@given(
    vcpus=st.integers(1, 192),
    memory=st.floats(1, 2000),
    price=st.floats(1e-3, 100),
    used=st.floats(0, 1),
)
def test_shares_and_idle_make_a_node(vcpus: int, memory: float, price: float, used: float) -> None:
    node = NodePrice(source="x", vcpus=vcpus, memory_gib=memory, usd_per_hour=price)
    busy = share_of_node(node, vcpus * used, memory * used)
    idle = share_of_node(node, vcpus * (1 - used), memory * (1 - used))

    assert (busy + idle) * price == pytest.approx(price)


@given(name=st.sampled_from(sorted(SHIPPED.nodes)))
def test_core_seconds_of_an_hour_make_the_price(name: str) -> None:
    node = SHIPPED.node(name)

    assert core_second_usd(SHIPPED, name) * node.vcpus * 3600 == pytest.approx(node.usd_per_hour)


def test_old_entries_are_listed_oldest_first(tmp_path: pathlib.Path) -> None:
    cost = write_book(
        tmp_path,
        "nodes:\n"
        "  lab/old: {vcpus: 1, memory_gib: 1, usd_per_hour: 1, source: x, date: 2020-01-01}\n"
        "  lab/edge: {vcpus: 1, memory_gib: 1, usd_per_hour: 1, source: x, date: 2025-11-24}\n"
        "  lab/older: {vcpus: 1, memory_gib: 1, usd_per_hour: 1, source: x, date: 2019-01-01}\n"
        "  lab/undated: {vcpus: 1, memory_gib: 1, usd_per_hour: 1, source: x}\n",
    )
    ages = stale_prices(load_prices(cost), today=datetime.date(2026, 11, 24))

    assert list(ages) == ["nodes.lab/older", "nodes.lab/old"]
    assert ages["nodes.lab/old"] == 2519


def test_prices_load_without_heavy_libraries() -> None:
    code = (
        "import sys; import equipoise.costs.price_book; "
        "sys.exit(bool({'torch', 'ray', 'transformers', 'plotly'} & set(sys.modules)))"
    )
    paths = {"PYTHONPATH": ":".join(sys.path)}

    assert subprocess.run([sys.executable, "-c", code], env=paths, check=False).returncode == 0
