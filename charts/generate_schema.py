"""Write the chart's values.schema.json: values.schema.yaml, and the run config's schema in it.

python charts/generate_schema.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from equipoise.config import RunConfig

SOURCE = Path(__file__).with_name("values.schema.yaml")
TARGET = Path(__file__).parent / "equipoise" / "values.schema.json"


def build_schema() -> dict[str, Any]:
    """The schema of the chart's own values, and under `$defs` that of the run config and its sections."""
    schema: dict[str, Any] = yaml.safe_load(SOURCE.read_text(encoding="utf-8"))
    run_config = RunConfig.model_json_schema()
    sections = run_config.pop("$defs")
    # The chart's own definitions start in lower case, those of the run config are class names.
    schema["$defs"] |= sections | {"RunConfig": run_config}
    return schema


def render_schema() -> str:
    """The file's text."""
    return json.dumps(build_schema(), indent=1) + "\n"


if __name__ == "__main__":
    TARGET.write_text(render_schema(), encoding="utf-8")
