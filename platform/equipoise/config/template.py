"""A commented run config, generated from the models so that it cannot go stale."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from equipoise.config.run import RunConfig
from equipoise.config.section import Section


def render_template(given: Mapping[str, Any]) -> str:
    """YAML with every key, a comment on each, defaults filled in and `given` on top."""
    lines = ["# Equipoise run config. Run it with: equipoise run -f THIS_FILE", ""]
    lines += _section(RunConfig, given, indent="")
    return "\n".join(lines) + "\n"


def _section(kind: type[Section], given: Mapping[str, Any], indent: str) -> list[str]:
    lines: list[str] = []
    for name, field in kind.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, Section):
            summary = (inner.__doc__ or "").strip().splitlines()[0]
            lines += ["", f"{indent}# {summary}", f"{indent}{name}:"]
            lines += _section(inner, given.get(name, {}), indent + "  ")
            continue
        if field.description:
            lines.append(f"{indent}# {field.description}")
        lines.append(f"{indent}{name}: {_scalar(given.get(name, _default(field)))}")
    return lines


def _default(field: FieldInfo) -> Any:
    value = field.get_default(call_default_factory=True, validated_data={})
    return None if value is PydanticUndefined else value


def _scalar(value: Any) -> str:
    plain = list(value) if isinstance(value, tuple) else value
    return yaml.safe_dump(plain, default_flow_style=True, width=10_000).removesuffix("\n...\n").strip()
