"""Equipoise: the cheapest model that is still good enough, found, priced and served."""

__version__ = "0.1.0"
