"""The teacher and the search of a run, without choice and test: `python search_driver.py CONFIG FOLDER`."""

from __future__ import annotations

import sys

from equipoise import ray_runtime
from equipoise.config import load_config
from equipoise.errors import EquipoiseError
from equipoise.pipeline.display import Lines
from equipoise.pipeline.preflight import Checked
from equipoise.pipeline.run import run_stages
from equipoise.pipeline.session import Session
from equipoise.runs import RunFolder
from equipoise.tasks import find_task


def main(file: str, folder: str) -> int:
    """The exit status that the command has."""
    ray_runtime.prepare_environment()
    config = load_config(file)
    try:
        run_stages(config, RunFolder(folder), Lines(), search)
    except EquipoiseError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_status
    return 0


def search(session: Session, checked: Checked) -> None:
    """The first two stages."""
    from equipoise.pipeline.teacher import train_teacher
    from equipoise.search.space import open_space
    from equipoise.search.study import run_search

    context = train_teacher(session, checked)
    family = find_task(session.config.task)
    space = open_space(session.config, context.teacher, family.layout, family.model_class)
    scratch = str(session.root / ".scratch")
    reason = run_search(context, space, scratch, lambda name: session.display.note(f"candidate {name}"))
    session.display.note(f"ended: {reason}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))
