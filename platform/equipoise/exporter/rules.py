"""The recording rules and alerts that go with the exporter's metrics."""

from __future__ import annotations

from pathlib import Path

RULES = Path(__file__).with_name("rules.yaml")
"""A Prometheus rule file; shipped in the wheel, and what the Helm chart installs."""
