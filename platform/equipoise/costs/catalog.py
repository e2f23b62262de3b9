"""Node prices out of a checkout of skypilot-org/skypilot-catalog, for the shipped price book.

A maintainer's tool: `make prices CATALOG=path/to/checkout` prints the `nodes` section of `prices.yaml`.
"""

from __future__ import annotations

import csv
import math
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from equipoise.errors import InputError

REGIONS = {"aws": "us-east-1", "gcp": "us-central1", "azure": "eastus"}
NODES = {
    "aws": (
        "c7i.large", "c7i.xlarge", "c7i.4xlarge", "c7i.8xlarge", "c7a.xlarge", "m7i.large", "m7i.4xlarge",
        "g4dn.4xlarge", "g5.xlarge", "g6.xlarge", "g6.8xlarge", "g6e.12xlarge", "g7e.2xlarge", "g7e.48xlarge",
        "p4d.24xlarge", "p5.48xlarge",
    ),
    "gcp": (
        "c3-standard-4", "c4d-highcpu-4", "c4d-highcpu-8", "n4a-standard-4", "n4a-standard-8",
        "n4a-standard-16", "g2-standard-4", "a2-highgpu-1g", "a2-ultragpu-1g", "a3-highgpu-8g",
    ),
    "azure": (
        "Standard_D8s_v5", "Standard_D8as_v5", "Standard_D64s_v5", "Standard_D96as_v5",
        "Standard_NC4as_T4_v3", "Standard_NC16as_T4_v3", "Standard_NC24ads_A100_v4",
        "Standard_NC48ads_A100_v4", "Standard_NC40ads_H100_v5",
    ),
}  # fmt: skip
"""What the shipped book takes; a name that the catalogue lacks is left out."""

_ATTACHED = {
    "g2-standard-4": ("L4", 1),
    "a2-highgpu-1g": ("A100", 1),
    "a2-ultragpu-1g": ("A100-80GB", 1),
    "a3-highgpu-8g": ("H100", 8),
}
"""GCP prices a machine without its GPUs, and they are in rows of their own."""


def main() -> None:
    """Print the nodes that a checkout holds, as YAML."""
    if len(sys.argv) != 2:
        sys.exit("usage: python -m equipoise.costs.catalog CHECKOUT")
    try:
        checkout = Path(sys.argv[1])
        sys.stdout.write(yaml.safe_dump({"nodes": read_catalog(checkout, *read_commit(checkout))}))
    except InputError as error:
        sys.exit(f"equipoise.costs.catalog: {error}")


def read_commit(checkout: Path) -> tuple[str, str]:
    """Short commit and its date (YYYY-MM-DD) of a git checkout.

    Raises:
        InputError: it is none.
    """
    try:
        found = subprocess.run(  # noqa: S603 - fixed words
            ["git", "-C", str(checkout), "show", "-s", "--format=%h %cs", "HEAD"],  # noqa: S607
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise InputError("is no git checkout", where=str(checkout)) from error
    commit, date = found.stdout.split()
    return commit, date


def read_catalog(
    checkout: Path, commit: str, date: str, nodes: Mapping[str, Iterable[str]] = NODES
) -> dict[str, dict[str, Any]]:
    """Entries of the price book by name, such as `aws/c7i.large`.

    On demand in the cloud's region of `REGIONS`; spot is that of the region's first zone, and left out
    where it is no lower than on demand, which stands for unknown. A node without a price is left out.

    Raises:
        InputError: a cloud's `vms.csv` is not there, or lacks a column.
    """
    found: dict[str, dict[str, Any]] = {}
    for cloud, names in nodes.items():
        file = _newest(checkout, cloud)
        rows = _rows(file, REGIONS[cloud])
        source = f"skypilot-catalog {commit} {file.relative_to(checkout).as_posix()}"
        for name in names:
            entry = _entry(rows, name)
            if entry is not None:
                found[f"{cloud}/{name}"] = {**entry, "source": source, "date": date}
    return found


def _newest(checkout: Path, cloud: str) -> Path:
    """The file of the newest schema that has this cloud."""
    files = sorted(
        checkout.glob(f"catalogs/v*/{cloud}/vms.csv"), key=lambda file: int(file.parts[-3].removeprefix("v"))
    )
    if not files:
        raise InputError(f"has no catalogs/v*/{cloud}/vms.csv", where=str(checkout))
    return files[-1]


def _rows(file: Path, region: str) -> dict[str, dict[str, str]]:
    """First row of each machine in a region, GPUs without a machine by `NAME:COUNT`."""
    found: dict[str, dict[str, str]] = {}
    with file.open(newline="", encoding="utf-8") as lines:
        try:
            for row in csv.DictReader(lines):
                if row["Region"] == region and _positive(row["Price"]) is not None:
                    name = (
                        row["InstanceType"] or f"{row['AcceleratorName']}:{_number(row['AcceleratorCount'])}"
                    )
                    found.setdefault(name, row)
        except KeyError as error:
            raise InputError(f"lacks the column {error}", where=str(file)) from error
    return found


def _entry(rows: Mapping[str, Mapping[str, str]], name: str) -> dict[str, Any] | None:
    row = rows.get(name)
    if row is None:
        return None
    gpu, count = row["AcceleratorName"], _number(row["AcceleratorCount"])
    price, spot = _positive(row["Price"]), _positive(row["SpotPrice"])
    if name in _ATTACHED:
        gpu, count = _ATTACHED[name]
        attached = rows.get(f"{gpu}:{count}")
        if attached is None:
            return None
        price = _sum(price, _positive(attached["Price"]))
        spot = _sum(spot, _positive(attached["SpotPrice"]))
    if price is None:
        return None
    zone = row.get("AvailabilityZone") or row["Region"]
    return {
        "vcpus": _number(row["vCPUs"]),
        "memory_gib": _number(row["MemoryGiB"]),
        **({"gpus": count, "gpu": gpu} if count else {}),
        "usd_per_hour": price,
        **({"spot_usd_per_hour": spot} if spot is not None and spot < price else {}),
        "region": row["Region"] if zone == row["Region"] else f"{row['Region']} (spot {zone})",
    }


def _positive(text: str) -> float | None:
    value = float(text or "nan")
    return value if math.isfinite(value) and value > 0 else None


def _sum(left: float | None, right: float | None) -> float | None:
    return None if left is None or right is None else round(left + right, 6)


def _number(text: str) -> int | float:
    value = float(text or 0)
    return int(value) if value.is_integer() else value


if __name__ == "__main__":
    main()
