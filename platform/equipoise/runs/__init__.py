"""The run folder and the records it holds."""

from equipoise.runs.folder import RunFolder
from equipoise.runs.records import (
    TOKEN_LIKELIHOOD,
    Agreement,
    Candidate,
    CostTerms,
    Figure,
    LedgerLine,
    Quality,
    Recipe,
    Speed,
)

__all__ = [
    "TOKEN_LIKELIHOOD",
    "Agreement",
    "Candidate",
    "CostTerms",
    "Figure",
    "LedgerLine",
    "Quality",
    "Recipe",
    "RunFolder",
    "Speed",
]
