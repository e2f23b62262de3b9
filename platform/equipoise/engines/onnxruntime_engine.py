"""ONNX Runtime on the CPU."""

from __future__ import annotations

from pathlib import Path

import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as state

from equipoise.tasks import Arrays

MODEL_FILE = "model.onnx"

LOAD_FAULTS: tuple[type[Exception], ...] = (
    state.EPFail,
    state.Fail,
    state.InvalidArgument,
    state.InvalidGraph,
    state.InvalidProtobuf,
    state.NoModel,
    state.NoSuchFile,
    state.NotImplemented,
    state.RuntimeException,
)
"""What a missing or damaged model raises: ONNX Runtime's errors derive from none of the built-in ones."""


class OnnxRuntimeEngine:
    """One session with a fixed number of threads."""

    def __init__(self, session: onnxruntime.InferenceSession) -> None:
        self.session = session
        self.outputs = [output.name for output in session.get_outputs()]

    def run(self, inputs: Arrays) -> Arrays:
        return dict(zip(self.outputs, self.session.run(self.outputs, inputs), strict=True))


def open_model(folder: Path, precision: str, threads: int) -> OnnxRuntimeEngine:
    """Load `model.onnx`; the precision is in the file."""
    del precision
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # A spinning thread would take the core that the batcher and the tokenizer need.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(
        str(folder / MODEL_FILE), options, providers=["CPUExecutionProvider"]
    )
    return OnnxRuntimeEngine(session)
