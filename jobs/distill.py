"""Job: distil one student of a run config; its teacher is fine-tuned first where it does not stand.

python jobs/distill.py -f jobs/configs/demo.yaml --layers 0,2,5 --out runs/demo
"""

from __future__ import annotations

import argparse
import sys

from equipoise.errors import EquipoiseError
from equipoise.pipeline.display import open_lines
from equipoise.pipeline.training import distill_file


def main() -> None:
    """Parse the command line, run, and end with the error's own exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-f", "--file", required=True, help="run config (YAML)")
    parser.add_argument(
        "--layers", required=True, type=_numbers, help="teacher's layers to start from, such as 0,2,5"
    )
    parser.add_argument("--out", help="run folder; default: the config's output, or runs/NAME")
    given = parser.parse_args()
    try:
        with open_lines() as lines:
            lines.say(f"done: {distill_file(given.file, given.out, given.layers, lines)}")
    except EquipoiseError as error:
        sys.stderr.write(f"equipoise: {error}\n")
        sys.exit(error.exit_status)


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


if __name__ == "__main__":
    main()
