"""What a price book holds: every figure positive, in US dollars, and with its source."""

from __future__ import annotations

import datetime
import difflib
from typing import Annotated, Literal

from pydantic import Field, model_validator

from equipoise.config.section import Section
from equipoise.errors import ConfigError

Usd = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Price(Section):
    """What every entry says of itself: where its figure is from, and when it was read there."""

    source: str = Field(min_length=1)
    date: datetime.date | None = Field(None, description="Day the figure was read; None if not known.")
    region: str | None = None


class NodePrice(Price):
    """A machine type: its size, and dollars an hour on demand."""

    vcpus: float = Field(gt=0, allow_inf_nan=False)
    memory_gib: float = Field(gt=0, allow_inf_nan=False)
    gpus: int = Field(0, ge=0)
    usd_per_hour: Usd
    spot_usd_per_hour: Usd | None = None


class StoragePrice(Price):
    """A storage class: dollars per GB (10^9 bytes) and month."""

    usd_per_gb_month: Usd


class LabelPrice(Price):
    """Dollars per labelled example."""

    usd_per_label: Usd


class EngineerPrice(Price):
    """Dollars per hour of the people who keep a deployment running."""

    usd_per_hour: Usd


class PriceBook(Section):
    """Every price that a run is costed with, in US dollars."""

    currency: Literal["USD"] = "USD"
    nodes: dict[str, NodePrice] = Field(min_length=1)
    storage: dict[str, StoragePrice] = Field(min_length=1)
    storage_class: str = Field(description="Entry of `storage` that a deployment's bytes are priced at.")
    label: LabelPrice
    engineer: EngineerPrice

    @model_validator(mode="after")
    def _storage_class_is_listed(self) -> PriceBook:
        if self.storage_class not in self.storage:
            raise ValueError(f"storage_class must be one of {', '.join(sorted(self.storage))}")
        return self

    def node(self, name: str, field: str = "") -> NodePrice:
        """The price of a machine type such as `aws/c7i.large`; a fault names the config field.

        Raises:
            ConfigError: the book has no such node.
        """
        if name in self.nodes:
            return self.nodes[name]
        near = difflib.get_close_matches(name, self.nodes, n=1)
        known = ", ".join(sorted(self.nodes))
        raise ConfigError(
            "node is not in the price book",
            where=field,
            value=name,
            remedy=f"did you mean {near[0]!r}?" if near else f"add it to a book of your own; known: {known}",
        )

    @property
    def storage_usd_per_gb_month(self) -> float:
        """Dollars per GB and month of the book's storage class."""
        return self.storage[self.storage_class].usd_per_gb_month
