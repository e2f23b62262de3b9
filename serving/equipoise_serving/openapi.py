"""The OpenAPI document of an endpoint: every route, every status, every error code."""

from __future__ import annotations

from typing import Any

from equipoise_serving.card import ModelCard

Schema = dict[str, Any]

_ERRORS = {
    400: "The body is not of the documented shape, not JSON, or not UTF-8.",
    401: "No API key, or an unknown one.",
    408: "No answer in time.",
    413: "The body is too large, or holds too many inputs.",
    415: "Not plain JSON.",
    429: "Too much is waiting; `retry-after` says when to come again.",
    500: "The model failed on this batch.",
}
_SECURITY: list[dict[str, list[str]]] = [{"bearer": []}, {"header": []}]
_REQUEST_ID = {
    "x-request-id": {"description": "The request's own id, or a new one.", "schema": {"type": "string"}}
}


def openapi_document(card: ModelCard, version: str) -> Schema:
    """OpenAPI 3.1 of the endpoint that serves this model."""
    schemas = _schemas(card)
    model = f"/v2/models/{card.name}"
    document: Schema = {
        "openapi": "3.1.0",
        "info": {
            "title": f"Equipoise: {card.name}",
            "version": version,
            "description": f"{card.task}, {card.engine} {card.precision}.",
        },
        "paths": {
            "/v1/predict": {
                "post": _post(
                    "predict", "Predict labels for one text or many", "PredictRequest", "Predictions", card
                )
            },
            f"{model}/infer": {
                "post": _post("infer", "Open Inference Protocol v2", "InferRequest", "InferResponse", card)
            },
            model: {"get": _get("modelMetadata", "Tensors of the model", "ModelMetadata", card)},
            f"{model}/ready": {"get": _get("modelReady", "Readiness of the model", "Ready")},
            "/v2": {"get": _get("serverMetadata", "Name and version of the server", "ServerMetadata", card)},
            "/v2/health/live": {"get": _get("live", "Liveness", "Live")},
            "/v2/health/ready": {"get": _get("ready", "Readiness", "Ready")},
            "/healthz": {"get": _get("healthz", "Liveness, for probes", "Status")},
            "/readyz": {"get": _get("readyz", "Readiness, for probes", "Status")},
        },
        "components": {"schemas": schemas},
    }
    if card.task == "text_generation":
        for path in ("/v1/predict", f"{model}/infer"):
            del document["paths"][path]
        schemas["Any"] = {"type": "object"}
        for name in ("completions", "chat/completions"):
            words = "Write what follows, as OpenAI's API has it; a stream where `stream` is true"
            document["paths"][f"/v1/{name}"] = {"post": _post(name, words, "Any", "Any", card)}
        for path in ("/v1/models", f"/v1/models/{card.name}"):
            document["paths"][path] = {"get": _get(path, "The model that is served", "Any", card)}
        schemas["Error"] = _object(
            {"error": {"type": "object", "required": ["message", "type", "param", "code"]}}
        )
    if card.needs_key:
        document["components"]["securitySchemes"] = {
            "bearer": {"type": "http", "scheme": "bearer"},
            "header": {"type": "apiKey", "in": "header", "name": "x-api-key"},
        }
    return document


def _post(identifier: str, summary: str, request: str, answer: str, card: ModelCard) -> Schema:
    statuses = [status for status in _ERRORS if status != 401 or card.needs_key]
    operation: Schema = {
        "operationId": identifier,
        "summary": summary,
        "requestBody": {"required": True, "content": {"application/json": {"schema": _ref(request)}}},
        "responses": {"200": _response("The predictions.", answer)} | _errors(statuses),
    }
    return operation | ({"security": _SECURITY} if card.needs_key else {})


def _get(identifier: str, summary: str, answer: str, card: ModelCard | None = None) -> Schema:
    """Without a card, the route asks for no key."""
    guarded = card is not None and card.needs_key
    operation: Schema = {
        "operationId": identifier,
        "summary": summary,
        "responses": {"200": _response(summary + ".", answer)} | _errors([401] if guarded else []),
    }
    return operation | ({"security": _SECURITY} if guarded else {})


def _errors(statuses: list[int]) -> Schema:
    return {str(status): _response(_ERRORS[status], "Error") for status in statuses}


def _response(description: str, schema: str) -> Schema:
    return {
        "description": description,
        "headers": _REQUEST_ID,
        "content": {"application/json": {"schema": _ref(schema)}},
    }


def _schemas(card: ModelCard) -> dict[str, Schema]:
    text: Schema = {"type": "string"}
    probability: Schema = {"type": "number", "minimum": 0, "maximum": 1}
    label: Schema = {"type": "string", "enum": list(card.labels)} if card.labels else text
    texts: Schema = {"type": "array", "items": text, "minItems": 1, "maxItems": card.max_inputs}
    named: Schema = {"type": "string", "enum": ["label", "score"]}
    tensor: Schema = _object(
        {
            "name": text,
            "datatype": text,
            "shape": {"type": "array", "items": {"type": "integer"}},
            "data": {"type": "array"},
        }
    )
    return {
        "PredictRequest": {
            "oneOf": [
                _object({"inputs": {"oneOf": [text, texts]}}, closed=True),
                _object({"text": text}, closed=True),
            ]
        },
        "Predictions": _object(
            {
                "model": {"const": card.name},
                "predictions": {
                    "type": "array",
                    "minItems": 1,
                    "items": _object(
                        {
                            "label": label,
                            "score": probability,
                            "scores": {"type": "object", "additionalProperties": probability},
                        }
                    ),
                },
            }
        ),
        "InferRequest": _object(
            {
                "inputs": {
                    "type": "array",
                    "minItems": 1,
                    "maxItems": 1,
                    "items": _object(
                        {
                            "name": {"const": "text"},
                            "datatype": {"const": "BYTES"},
                            "shape": {
                                "description": "[n] or [n, 1], n being the number of texts.",
                                "type": "array",
                                "items": {"type": "integer", "minimum": 1},
                                "minItems": 1,
                                "maxItems": 2,
                            },
                            "data": texts,
                        }
                    ),
                }
            },
            optional={
                "id": {"type": ["string", "null"]},
                "outputs": {"type": ["array", "null"], "items": _object({"name": named}), "maxItems": 2},
            },
        ),
        "InferResponse": _object(
            {
                "model_name": {"const": card.name},
                "model_version": text,
                "outputs": {"type": "array", "items": tensor},
            },
            optional={"id": text},
        ),
        "ModelMetadata": _object(
            {
                "name": {"const": card.name},
                "versions": {"type": "array", "items": text},
                "platform": text,
                "inputs": {"type": "array", "items": {"type": "object"}},
                "outputs": {"type": "array", "items": {"type": "object"}},
            }
        ),
        "ServerMetadata": _object(
            {"name": text, "version": text, "extensions": {"type": "array", "items": text}}
        ),
        "Ready": _object({"ready": {"const": True}}),
        "Live": _object({"live": {"const": True}}),
        "Status": _object({"status": text}),
        "Error": _object({"error": _object({"code": text, "message": text}, closed=True)}, closed=True),
    }


def _object(required: Schema, *, optional: Schema | None = None, closed: bool = False) -> Schema:
    found: Schema = {"type": "object", "required": list(required), "properties": required | (optional or {})}
    return found | ({"additionalProperties": False} if closed else {})


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}
