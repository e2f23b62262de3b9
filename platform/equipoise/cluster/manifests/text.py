"""Objects as YAML that a person can read."""

from __future__ import annotations

from typing import Any

import yaml


class _Dumper(yaml.CSafeDumper):
    """Texts of several lines as blocks; what occurs twice is written twice, without anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: _Dumper, value: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


_Dumper.add_representer(str, _text)


def to_yaml(*documents: Any) -> str:
    """One YAML document each, keys in their own order."""
    return yaml.dump_all(documents, Dumper=_Dumper, sort_keys=False, width=100)
