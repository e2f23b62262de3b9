"""The Open Inference Protocol, version 2: one BYTES tensor of texts in, label and score out.

Tensors travel as JSON; the binary-tensor extension is not offered.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from equipoise_serving.errors import bad_request
from equipoise_serving.json_body import MAX_INPUTS, check_texts, decode_object
from equipoise_serving.plain import Prediction

INPUT = "text"
OUTPUTS = {"label": "BYTES", "score": "FP64"}


@dataclass(frozen=True)
class InferRequest:
    """A parsed infer request."""

    texts: list[str]
    outputs: tuple[str, ...]
    identifier: str | None


def server_metadata(version: str) -> dict[str, Any]:
    """Answer of `GET /v2`."""
    return {"name": "equipoise", "version": version, "extensions": []}


def model_metadata(model_name: str, engine: str, *, infers: bool = True) -> dict[str, Any]:
    """Answer of `GET /v2/models/{name}`; a model that writes has no tensors."""
    if not infers:
        tensors: dict[str, Any] = {"inputs": [], "outputs": []}
    else:
        tensors = {
            "inputs": [{"name": INPUT, "datatype": "BYTES", "shape": [-1]}],
            "outputs": [{"name": name, "datatype": kind, "shape": [-1]} for name, kind in OUTPUTS.items()],
        }
    return {"name": model_name, "versions": ["1"], "platform": f"equipoise_{engine}"} | tensors


def parse_infer(body: bytes, max_inputs: int = MAX_INPUTS) -> InferRequest:
    """One input tensor of datatype BYTES and shape [n] or [n, 1].

    Raises:
        RequestError: 400 or 413, naming what is wrong.
    """
    request = decode_object(body)
    identifier = request.get("id")
    if identifier is not None and not isinstance(identifier, str):
        raise bad_request("id must be a string")
    inputs = request.get("inputs")
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
        raise bad_request("inputs must be a list of one tensor")
    return InferRequest(_texts(inputs[0], max_inputs), _outputs(request.get("outputs")), identifier)


def render_infer(model_name: str, request: InferRequest, predictions: list[Prediction]) -> dict[str, Any]:
    """The infer response with the outputs that were asked for."""
    answer: dict[str, Any] = {"model_name": model_name, "model_version": "1"}
    if request.identifier is not None:
        answer["id"] = request.identifier
    answer["outputs"] = [
        {
            "name": name,
            "datatype": OUTPUTS[name],
            "shape": [len(predictions)],
            "data": [prediction[name] for prediction in predictions],
        }
        for name in request.outputs
    ]
    return answer


def _texts(tensor: dict[str, Any], max_inputs: int) -> list[str]:
    if tensor.get("name") != INPUT:
        raise bad_request(f"the input tensor must be named {INPUT}")
    if tensor.get("datatype") != "BYTES":
        raise bad_request("the input tensor must be of datatype BYTES")
    shape, data = tensor.get("shape"), tensor.get("data")
    if not isinstance(shape, list) or not all(type(size) is int for size in shape):
        raise bad_request("shape must be a list of integers")
    if len(shape) not in (1, 2) or shape[1:] not in ([], [1]):
        raise bad_request("shape must be [n] or [n, 1]")
    if not isinstance(data, list):
        raise bad_request("data must be a list of strings")
    if len(shape) == 2 and all(isinstance(row, list) and len(row) == 1 for row in data):
        data = [row[0] for row in data]
    if math.prod(shape) != len(data):
        raise bad_request(f"shape {shape} does not match {len(data)} values in data")
    return check_texts(data, "data", max_inputs)


def _outputs(asked: Any) -> tuple[str, ...]:
    if asked is None or asked == []:
        return tuple(OUTPUTS)
    if not isinstance(asked, list):
        raise bad_request("outputs must be a list")
    names = []
    for output in asked:
        name = output.get("name") if isinstance(output, dict) else None
        if not isinstance(name, str) or name not in OUTPUTS or name in names:
            raise bad_request(f"outputs must name each of {', '.join(OUTPUTS)} at most once")
        names.append(name)
    return tuple(names)
