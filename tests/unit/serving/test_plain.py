"""The protocol for people."""

from __future__ import annotations

import json
from typing import Any

import pytest

from equipoise_serving.errors import RequestError
from equipoise_serving.plain import parse_predict, render_predict


@pytest.mark.parametrize(
    ("request_body", "texts"),
    [
        ({"inputs": "a"}, ["a"]),
        ({"inputs": ["a", "b"]}, ["a", "b"]),
        ({"text": "a"}, ["a"]),
        ({"inputs": ""}, [""]),
        ({"inputs": "Zürich 🙂"}, ["Zürich 🙂"]),
    ],
)
def test_three_forms_are_taken(request_body: dict[str, Any], texts: list[str]) -> None:
    assert parse_predict(json.dumps(request_body).encode()) == texts


@pytest.mark.parametrize(
    "request_body",
    [
        {},
        {"input": "a"},
        {"inputs": None},
        {"inputs": 1},
        {"inputs": []},
        {"inputs": {"text": "a"}},
        {"text": ["a"]},
        {"inputs": "a", "text": "b"},
        {"inputs": "a", "parameters": {}},
    ],
)
def test_other_shapes_are_refused(request_body: dict[str, Any]) -> None:
    with pytest.raises(RequestError) as caught:
        parse_predict(json.dumps(request_body).encode())
    assert (caught.value.status, caught.value.code) == (400, "invalid_request")


def test_answer_names_the_model() -> None:
    prediction = {"label": "a", "score": 1.0, "scores": {"a": 1.0}}
    assert render_predict("tiny", [prediction]) == {"model": "tiny", "predictions": [prediction]}
