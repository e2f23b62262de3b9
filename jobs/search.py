"""Job: a whole run from one config, with plain progress lines. The same as `equipoise run`.

python jobs/search.py -f jobs/configs/demo.yaml --out runs/demo
"""

from __future__ import annotations

import argparse
import sys

from equipoise.errors import EquipoiseError
from equipoise.pipeline.display import open_lines
from equipoise.pipeline.run import run_file


def main() -> None:
    """Parse the command line, run, and end with the error's own exit status."""
    parser = argparse.ArgumentParser(description="Run or resume a run config.")
    parser.add_argument("-f", "--file", required=True, help="run config (YAML)")
    parser.add_argument("--out", help="run folder; default: the config's output, or runs/NAME")
    given = parser.parse_args()
    try:
        with open_lines() as lines:
            lines.say(f"done: {run_file(given.file, given.out, lines).location}")
    except EquipoiseError as error:
        sys.stderr.write(f"equipoise: {error}\n")
        sys.exit(error.exit_status)


if __name__ == "__main__":
    main()
