"""Run configs: declared once, in pydantic."""

from equipoise.config.load import load_config, read_yaml, validate_config
from equipoise.config.run import RunConfig
from equipoise.config.section import Section

__all__ = ["RunConfig", "Section", "load_config", "read_yaml", "validate_config"]
