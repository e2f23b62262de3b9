"""`POST /v1/predict`: the protocol for people."""

from __future__ import annotations

from typing import Any

from equipoise_serving.errors import bad_request
from equipoise_serving.json_body import MAX_INPUTS, check_texts, decode_object

Prediction = dict[str, Any]
"""`{"label": str, "score": float, "scores": {label: float}}`."""


def parse_predict(body: bytes, max_inputs: int = MAX_INPUTS) -> list[str]:
    """Texts of `{"inputs": "text"}`, `{"inputs": ["text", …]}` or `{"text": "text"}`.

    Raises:
        RequestError: 400 or 413, naming what is wrong.
    """
    request = decode_object(body)
    if len(request) != 1 or not request.keys() <= {"inputs", "text"}:
        raise bad_request('the body must be {"inputs": "text"}, {"inputs": ["text", …]} or {"text": "text"}')
    field, value = next(iter(request.items()))
    if field == "inputs" and isinstance(value, list):
        return check_texts(value, "inputs", max_inputs)
    return check_texts([value], field)


def render_predict(model_name: str, predictions: list[Prediction]) -> dict[str, Any]:
    """The answer, one prediction a text, in order."""
    return {"model": model_name, "predictions": predictions}
