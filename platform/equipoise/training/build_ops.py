"""Builds at install time what training would otherwise compile, and seem to hang over for up to two minutes.

DeepSpeed's shared-memory all-reduce for CPUs, and nncf's rounding for quantization-aware training. Where
there is no compiler, training goes without the first, and `int8_qat` is refused.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Callable

from equipoise import hardware
from equipoise.ray_runtime import prepare_environment
from equipoise.training.compiled_ops import EXCHANGE, ROUNDING, loading_alone


def build_ops() -> list[str]:
    """Build the ops unless they stand; returns a line about each."""
    if not hardware.has_compiler():
        return ["no C++ compiler: no ops for CPUs are built"]
    prepare_environment()
    ops = {"nncf's rounding": _build_rounding}
    if not hardware.describe_hardware()["gpus"]:  # there training's workers exchange over GPUs
        ops["DeepSpeed's shared-memory op"] = _build_exchange
    return [_built(name, build) for name, build in ops.items()]


def _built(name: str, build: Callable[[], None]) -> str:
    try:
        with contextlib.redirect_stdout(sys.stderr):
            build()
    except (RuntimeError, OSError, ImportError, subprocess.SubprocessError) as error:
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        return f"{name} was not built ({line}): training compiles it, or goes without"
    return f"{name} is built"


def _build_exchange() -> None:
    from deepspeed.ops.op_builder.cpu import ShareMemCommBuilder

    with loading_alone(EXCHANGE):
        ShareMemCommBuilder().load(verbose=False)


def _build_rounding() -> None:
    from nncf.torch.quantization import extensions

    # Where it does not compile, nncf logs a warning and takes slower operations of torch.
    with loading_alone(ROUNDING):
        found = extensions.QuantizedFunctionsCPULoader.load()
    if found is extensions.ReferenceQuantizedFunctions:
        raise RuntimeError("it does not compile")


if __name__ == "__main__":
    print("\n".join(build_ops()))  # noqa: T201
