"""The engine protocol and how an engine is opened by name."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import Protocol

from equipoise.errors import BundleError, ConfigError
from equipoise.tasks import Arrays

ENGINES = {
    "torch": "equipoise.engines.torch_engine",
    "onnxruntime": "equipoise.engines.onnxruntime_engine",
    "openvino": "equipoise.engines.openvino_engine",
}


class Engine(Protocol):
    """Runs a model: named arrays in, named arrays out, the batch as first axis."""

    def run(self, inputs: Arrays) -> Arrays:
        """One forward pass."""
        ...


def open_engine(name: str, model_folder: Path, precision: str, threads: int = 1) -> Engine:
    """Load a model folder into the named engine with a fixed number of threads.

    Raises:
        ConfigError: the engine is unknown or not installed.
        BundleError: the model's files cannot be loaded.
    """
    if name not in ENGINES:
        raise ConfigError("no such engine", where="engine", value=name, remedy=f"one of {', '.join(ENGINES)}")
    if not is_installed(name):
        raise ConfigError("engine is not installed", where="engine", value=name, remedy=f"pip install {name}")
    module = importlib.import_module(ENGINES[name])
    try:
        engine: Engine = module.open_model(model_folder, precision, threads)
    except (OSError, RuntimeError, ValueError, KeyError, *module.LOAD_FAULTS) as error:
        raise BundleError(f"{name} cannot load the model: {error}", where=str(model_folder)) from error
    return engine


def is_installed(name: str) -> bool:
    """Whether an engine's library can be imported here; imports nothing."""
    return importlib.util.find_spec(name) is not None
