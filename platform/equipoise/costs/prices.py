"""What a price book holds: every figure positive, in US dollars, and with its source."""

from __future__ import annotations

import datetime
import difflib
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from equipoise.config.section import Section
from equipoise.errors import ConfigError

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Usd = Positive

_HOURS_PER_YEAR = 8760
_LISTED = 12


class Price(Section):
    """What every entry says of itself: where its figure is from, and when it was read there."""

    source: str = Field(min_length=1)
    date: datetime.date | None = Field(None, description="Day the figure was read; None if not known.")
    region: str | None = None
    currency: Literal["USD"] = "USD"


class OwnHardware(Section):
    """A machine that was bought: its price over its life, and its power at a tariff."""

    purchase_usd: Usd
    life_years: Positive
    power_watts: float = Field(ge=0, allow_inf_nan=False, description="Mean draw, cooling included.")
    usd_per_kwh: float = Field(ge=0, allow_inf_nan=False, description="Tariff.")

    @property
    def usd_per_hour(self) -> float:
        """Dollars an hour, busy or not: it is paid for around the clock."""
        bought = self.purchase_usd / (self.life_years * _HOURS_PER_YEAR)
        return bought + self.power_watts / 1000 * self.usd_per_kwh


class NodePrice(Price):
    """A machine type: its size, and dollars an hour on demand or of owning it."""

    vcpus: Positive
    memory_gib: Positive
    gpus: int = Field(0, ge=0)
    gpu: str | None = Field(None, description="GPU model.")
    usd_per_hour: Usd
    spot_usd_per_hour: Usd | None = None
    own: OwnHardware | None = None

    @model_validator(mode="before")
    @classmethod
    def _price_what_is_owned(cls, values: Any) -> Any:
        own = values.get("own") if isinstance(values, dict) else None
        if own is None:
            return values
        try:
            price = OwnHardware.model_validate(own).usd_per_hour
        except ValidationError:
            return {**values, "usd_per_hour": 1.0}  # The field `own` itself tells what is wrong with it.
        if values.get("usd_per_hour", price) != price or values.get("spot_usd_per_hour") is not None:
            raise ValueError("give either a price an hour, or what owning it costs (own)")
        return {**values, "usd_per_hour": price}


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
        names = sorted(self.nodes)
        known = ", ".join(names[:_LISTED]) + (f" and {len(names) - _LISTED} more" if names[_LISTED:] else "")
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
