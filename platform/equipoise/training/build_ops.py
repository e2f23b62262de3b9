"""Builds DeepSpeed's shared-memory all-reduce for CPUs at install time.

DeepSpeed would otherwise compile it inside the first training, which then seems to hang for up to two
minutes. Where there is no compiler, training goes without it.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys

from equipoise import hardware
from equipoise.ray_runtime import prepare_environment


def build_ops() -> str:
    """Build the op unless it stands; returns one line about what was done."""
    if hardware.describe_hardware()["gpus"]:
        return "training runs on the GPUs: no CPU ops are needed"
    if not hardware.has_compiler():
        return "no C++ compiler: training goes without DeepSpeed's shared-memory op"
    prepare_environment()
    try:
        with contextlib.redirect_stdout(sys.stderr):
            from deepspeed.ops.op_builder.cpu import ShareMemCommBuilder

            ShareMemCommBuilder().load(verbose=False)
    except (RuntimeError, OSError, ImportError, subprocess.SubprocessError) as error:
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        return f"DeepSpeed's shared-memory op was not built ({line}); training goes without it"
    return "DeepSpeed's shared-memory op is built"


if __name__ == "__main__":
    print(build_ops())  # noqa: T201
