"""The Open Inference Protocol's requests and responses."""

from __future__ import annotations

import json
from typing import Any

import pytest

from equipoise_serving.errors import RequestError
from equipoise_serving.inference_protocol import (
    InferRequest,
    model_metadata,
    parse_infer,
    render_infer,
    server_metadata,
)

TENSOR = {"name": "text", "datatype": "BYTES", "shape": [2], "data": ["a", "b"]}
PREDICTIONS = [{"label": "x", "score": 0.75, "scores": {}}, {"label": "y", "score": 0.5, "scores": {}}]


def parse(request: dict[str, Any]) -> InferRequest:
    return parse_infer(json.dumps(request).encode())


@pytest.mark.parametrize(
    "tensor",
    [TENSOR, {**TENSOR, "shape": [2, 1]}, {**TENSOR, "shape": [2, 1], "data": [["a"], ["b"]]}],
    ids=["row", "column", "nested"],
)
def test_texts_of_a_bytes_tensor(tensor: dict[str, Any]) -> None:
    assert parse({"inputs": [tensor]}) == InferRequest(["a", "b"], ("label", "score"), None)


@pytest.mark.parametrize(
    "request_body",
    [
        {},
        {"inputs": []},
        {"inputs": [TENSOR, TENSOR]},
        {"inputs": ["a"]},
        {"inputs": [TENSOR], "id": 7},
        {"inputs": [TENSOR], "outputs": "label"},
        {"inputs": [TENSOR], "outputs": [{"name": "logits"}]},
        {"inputs": [TENSOR], "outputs": [{"name": ["label"]}]},
        {"inputs": [TENSOR], "outputs": [{"name": "label"}, {"name": "label"}]},
        *(
            {"inputs": [{**TENSOR, **change}]}
            for change in (
                {"name": "other"},
                {"datatype": "FP32"},
                {"shape": None},
                {"shape": []},
                {"shape": [3]},
                {"shape": [-2]},
                {"shape": [2.0]},
                {"shape": [True]},
                {"shape": [1, 2]},
                {"shape": [2, 1, 1]},
                {"shape": [0], "data": []},
                {"data": "ab"},
                {"data": [1, 2]},
                {"data": [["a"], ["b"]]},
                {"data": None},
            )
        ),
    ],
)
def test_other_shapes_are_refused(request_body: dict[str, Any]) -> None:
    with pytest.raises(RequestError) as caught:
        parse(request_body)
    assert (caught.value.status, caught.value.code) == (400, "invalid_request")


def test_response_mirrors_the_identifier_and_the_outputs_asked_for() -> None:
    request = parse({"id": "r1", "inputs": [TENSOR], "outputs": [{"name": "score"}]})
    assert render_infer("tiny", request, PREDICTIONS) == {
        "model_name": "tiny",
        "model_version": "1",
        "id": "r1",
        "outputs": [{"name": "score", "datatype": "FP64", "shape": [2], "data": [0.75, 0.5]}],
    }


def test_response_without_identifier_has_label_and_score() -> None:
    answer = render_infer("tiny", parse({"inputs": [TENSOR]}), PREDICTIONS)
    assert "id" not in answer
    assert [output["data"] for output in answer["outputs"]] == [["x", "y"], [0.75, 0.5]]


def test_metadata_describes_the_tensors() -> None:
    metadata = model_metadata("tiny", "openvino")
    assert metadata["inputs"] == [{"name": "text", "datatype": "BYTES", "shape": [-1]}]
    assert {output["name"]: output["datatype"] for output in metadata["outputs"]} == {
        "label": "BYTES",
        "score": "FP64",
    }
    assert server_metadata("1.2")["version"] == "1.2"
