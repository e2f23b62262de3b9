"""Ops of DeepSpeed and nncf that are compiled on the machine, loaded by one process at a time.

torch guards a build by a file. A process that is killed while it holds it leaves the file behind, and whoever
comes next waits for ever. Here a lock goes first that the kernel gives back when its holder dies: what file
is found under it is nobody's.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from equipoise.errors import RetryableError

EXCHANGE, ROUNDING = "deepspeed_shm_comm", "nncf"
BUILD_S = 900
"""Longest wait for another process that compiles; on two busy cores an op takes minutes."""


@contextlib.contextmanager
def loading_alone(op: str) -> Iterator[None]:
    """Hold off every other process of this machine that loads the op, and clear what a killed one left.

    Args:
        op: its folder below TORCH_EXTENSIONS_DIR.

    Raises:
        RetryableError: another process holds it for longer than a build takes.
    """
    root = Path(os.environ["TORCH_EXTENSIONS_DIR"])
    root.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(root / f".{op}.lock", timeout=BUILD_S):
            for left in (root / op).glob("**/lock"):
                left.unlink(missing_ok=True)
            yield
    except Timeout as error:
        raise RetryableError(
            f"another process has been building it for {BUILD_S} s",
            where=str(root / op),
            remedy="see what it is at, then run again",
        ) from error


def load_ops(deepspeed_config: dict[str, Any]) -> None:
    """Load what `deepspeed.initialize` will ask for on CPUs: afterwards it finds it loaded.

    The shared-memory all-reduce is used only where it was built beforehand. Its first use would otherwise
    compile for minutes, or fail where there is no compiler.
    """
    import deepspeed
    from deepspeed.accelerator import get_accelerator
    from deepspeed.git_version_info import installed_ops

    accelerator = get_accelerator()
    exchange = accelerator.create_op_builder("ShareMemCommBuilder")
    # Compiled when DeepSpeed was installed, as in the container image, it is merely imported.
    if exchange is not None and not installed_ops.get(EXCHANGE):
        built = Path(os.environ.get("TORCH_EXTENSIONS_DIR", "")) / EXCHANGE
        if any(built.glob("**/deepspeed_shm_comm*.so")):
            with loading_alone(EXCHANGE):
                exchange.load(verbose=False)
        else:
            deepspeed.ops.__compatible_ops__[EXCHANGE] = False
    adam = accelerator.create_op_builder("CPUAdamBuilder") if _adam_on_cpu(deepspeed_config) else None
    if adam is not None and not installed_ops.get(adam.name):
        with loading_alone(adam.name):
            adam.load(verbose=False)


def _adam_on_cpu(deepspeed_config: dict[str, Any]) -> bool:
    """Whether DeepSpeed's own Adam runs on the CPU, and not torch's."""
    offload = deepspeed_config.get("zero_optimization", {}).get("offload_optimizer", {})
    optimizer = deepspeed_config.get("optimizer", {})
    plain = optimizer.get("params", {}).get("torch_adam", False)
    return offload.get("device") == "cpu" and "adam" in optimizer.get("type", "").lower() and not plain
