"""Configs that come with the package."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from equipoise.errors import ConfigError


def shipped_config(name: str) -> Path:
    """Path of a shipped run config, in the wheel or in a checkout.

    Raises:
        ConfigError: there is none of that name.
    """
    places = (
        Path(str(resources.files("equipoise"))) / "configs",
        Path(str(resources.files("equipoise"))).parents[1] / "jobs" / "configs",
    )
    for place in places:
        if (place / f"{name}.yaml").is_file():
            return place / f"{name}.yaml"
    raise ConfigError("no such shipped config", value=name)
