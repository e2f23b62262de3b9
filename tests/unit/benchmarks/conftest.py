"""Benchmarks are no installed package: they are imported from the repository's root."""

from __future__ import annotations

import sys
from pathlib import Path

# Last, so that nothing of the root (such as its platform/) comes before an installed module.
sys.path.append(str(Path(__file__).resolve().parents[3]))
