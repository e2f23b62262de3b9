from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from equipoise.config.cost import CostConfig
from equipoise.costs.catalog import NODES, read_catalog
from equipoise.costs.price_book import load_prices
from equipoise.errors import InputError

AWS = """InstanceType,AcceleratorName,AcceleratorCount,vCPUs,MemoryGiB,GpuInfo,Price,SpotPrice,Region,AvailabilityZone,Arch
a.large,,,2.0,4.0,,0.11,0.04,eu-west-1,euw1-az1,x86_64
a.large,,,2.0,4.0,,0.09,0.03,us-east-1,use1-az1,x86_64
a.large,,,2.0,4.0,,0.09,0.02,us-east-1,use1-az2,x86_64
g.xlarge,L4,1.0,4.0,16.0,"{'Gpus': [{'Name': 'L4'}]}",0.8,0.8,us-east-1,use1-az1,x86_64
new.large,,,2.0,4.0,,,0.5,us-east-1,use1-az1,x86_64
"""  # noqa: E501
GCP = """InstanceType,vCPUs,MemoryGiB,AcceleratorName,AcceleratorCount,GpuInfo,Region,AvailabilityZone,Price,SpotPrice
g2-standard-4,4.0,16.0,,,,us-central1,us-central1-a,0.14,0.07
a2-highgpu-1g,12.0,85.0,,,,us-central1,us-central1-a,0.73,0.38
,,,L4,1.0,L4,us-central1,us-central1-a,0.56,0.22
,,,L4,2.0,L4,us-central1,us-central1-a,1.12,0.44
"""  # noqa: E501
AZURE = """InstanceType,AcceleratorName,AcceleratorCount,vCPUs,MemoryGiB,GpuInfo,Price,SpotPrice,Region,Generation
Standard_D8s_v5,,,8.0,32,,0.384,0.042,eastus,"V1,V2"
Standard_D2,,,2.0,3.5,,0.1,,eastus,V1
"""  # noqa: E501
WANTED = {
    "aws": ("a.large", "g.xlarge", "new.large", "none"),
    "gcp": ("g2-standard-4", "a2-highgpu-1g"),
    "azure": ("Standard_D8s_v5", "Standard_D2"),
}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A catalogue's layout with prices of its own; an older schema beside the newer one."""
    files = {"v8/aws": AWS.replace("0.09", "7"), "v10/aws": AWS, "v9/gcp": GCP, "v6/azure": AZURE}
    for place, text in files.items():
        folder = tmp_path / "catalogs" / place
        folder.mkdir(parents=True)
        (folder / "vms.csv").write_text(text)
    return tmp_path


def test_prices_are_those_of_the_region_and_its_first_zone(checkout: Path) -> None:
    found = read_catalog(checkout, "abc1234", "2026-11-01", WANTED)

    assert found["aws/a.large"] == {
        "vcpus": 2, "memory_gib": 4, "usd_per_hour": 0.09, "spot_usd_per_hour": 0.03,
        "region": "us-east-1 (spot use1-az1)", "source": "skypilot-catalog abc1234 catalogs/v10/aws/vms.csv",
        "date": "2026-11-01",
    }  # fmt: skip
    assert found["azure/Standard_D2"]["memory_gib"] == 3.5
    assert found["azure/Standard_D8s_v5"]["region"] == "eastus"


def test_spot_that_is_no_lower_or_absent_is_left_out(checkout: Path) -> None:
    found = read_catalog(checkout, "abc1234", "2026-11-01", WANTED)

    assert "spot_usd_per_hour" not in found["aws/g.xlarge"]
    assert "spot_usd_per_hour" not in found["azure/Standard_D2"]


def test_a_gcp_machine_is_priced_with_its_gpus(checkout: Path) -> None:
    found = read_catalog(checkout, "abc1234", "2026-11-01", WANTED)

    assert found["gcp/g2-standard-4"]["usd_per_hour"] == 0.7
    assert found["gcp/g2-standard-4"]["spot_usd_per_hour"] == 0.29
    assert (found["gcp/g2-standard-4"]["gpu"], found["gcp/g2-standard-4"]["gpus"]) == ("L4", 1)


def test_what_has_no_price_is_left_out(checkout: Path) -> None:
    found = read_catalog(checkout, "abc1234", "2026-11-01", WANTED)

    assert not {"aws/new.large", "aws/none", "gcp/a2-highgpu-1g"} & set(found)


def test_a_checkout_becomes_a_price_book(checkout: Path, tmp_path: Path) -> None:
    git = ["git", "-C", str(checkout), "-c", "user.name=x", "-c", "user.email=x@example.org"]
    (checkout / "catalogs" / "v9" / "gcp" / "vms.csv").write_text(
        GCP.replace("g2-standard-4", "c3-standard-4")
    )
    for words in (["init", "-q"], ["add", "catalogs"], ["commit", "-q", "-m", "x"]):
        subprocess.run([*git, *words], check=True)
    printed = subprocess.run(
        [sys.executable, "-m", "equipoise.costs.catalog", str(checkout)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": ":".join(sys.path)},
    ).stdout
    own = tmp_path / "prices.yaml"
    own.write_text(printed)
    book = load_prices(CostConfig(prices=str(own)))

    assert set(yaml.safe_load(printed)["nodes"]) == {"azure/Standard_D8s_v5", "gcp/c3-standard-4"}
    assert book.node("gcp/c3-standard-4").usd_per_hour == 0.14
    assert book.node("azure/Standard_D8s_v5").date is not None


def test_a_folder_without_a_catalogue_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no catalogs/v\*/aws/vms\.csv"):
        read_catalog(tmp_path, "abc1234", "2026-11-01", WANTED)


def test_another_layout_names_the_column(checkout: Path) -> None:
    (checkout / "catalogs" / "v10" / "aws" / "vms.csv").write_text("Name,Price\nx,1\n")
    with pytest.raises(InputError, match="lacks the column 'Region'"):
        read_catalog(checkout, "abc1234", "2026-11-01", WANTED)


def test_the_shipped_nodes_are_among_those_that_the_tool_takes() -> None:
    shipped = load_prices(CostConfig()).nodes

    assert set(shipped) <= {f"{cloud}/{name}" for cloud, names in NODES.items() for name in names}
    assert {name.partition("/")[0] for name in shipped} == {"aws", "gcp", "azure"}
    assert sum(node.gpus > 0 for node in shipped.values()) >= 10
    assert all(node.gpu for node in shipped.values() if node.gpus)
