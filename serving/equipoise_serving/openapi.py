"""The OpenAPI document of an endpoint: every route, every status, every error code."""

from __future__ import annotations

from equipoise_serving.card import ModelCard
from equipoise_serving.openapi_parts import Schema, get, object_of, post
from equipoise_serving.openapi_writing import writing_paths, writing_schemas


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
                "post": post(
                    "predict", "Predict labels for one text or many", "PredictRequest", "Predictions", card
                )
            },
            f"{model}/infer": {
                "post": post("infer", "Open Inference Protocol v2", "InferRequest", "InferResponse", card)
            },
            model: {"get": get("modelMetadata", "Tensors of the model", "ModelMetadata", card)},
            f"{model}/ready": {"get": get("modelReady", "Readiness of the model", "Ready")},
            "/v2": {"get": get("serverMetadata", "Name and version of the server", "ServerMetadata", card)},
            "/v2/health/live": {"get": get("live", "Liveness", "Live")},
            "/v2/health/ready": {"get": get("ready", "Readiness", "Ready")},
            "/healthz": {"get": get("healthz", "Liveness, for probes", "Status")},
            "/readyz": {"get": get("readyz", "Readiness, for probes", "Status")},
        },
        "components": {"schemas": schemas},
    }
    if card.writes:
        for path in ("/v1/predict", f"{model}/infer"):
            del document["paths"][path]
        document["paths"] |= writing_paths(card)
        schemas |= writing_schemas(card)
    if card.needs_key:
        document["components"]["securitySchemes"] = {
            "bearer": {"type": "http", "scheme": "bearer"},
            "header": {"type": "apiKey", "in": "header", "name": "x-api-key"},
        }
    return document


def _schemas(card: ModelCard) -> dict[str, Schema]:
    text: Schema = {"type": "string"}
    probability: Schema = {"type": "number", "minimum": 0, "maximum": 1}
    label: Schema = {"type": "string", "enum": list(card.labels)} if card.labels else text
    texts: Schema = {"type": "array", "items": text, "minItems": 1, "maxItems": card.max_inputs}
    named: Schema = {"type": "string", "enum": ["label", "score"]}
    tensor: Schema = object_of(
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
                object_of({"inputs": {"oneOf": [text, texts]}}, closed=True),
                object_of({"text": text}, closed=True),
            ]
        },
        "Predictions": object_of(
            {
                "model": {"const": card.name},
                "predictions": {
                    "type": "array",
                    "minItems": 1,
                    "items": object_of(
                        {
                            "label": label,
                            "score": probability,
                            "scores": {"type": "object", "additionalProperties": probability},
                        }
                    ),
                },
            }
        ),
        "InferRequest": object_of(
            {
                "inputs": {
                    "type": "array",
                    "minItems": 1,
                    "maxItems": 1,
                    "items": object_of(
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
                "outputs": {"type": ["array", "null"], "items": object_of({"name": named}), "maxItems": 2},
            },
        ),
        "InferResponse": object_of(
            {
                "model_name": {"const": card.name},
                "model_version": text,
                "outputs": {"type": "array", "items": tensor},
            },
            optional={"id": text},
        ),
        "ModelMetadata": object_of(
            {
                "name": {"const": card.name},
                "versions": {"type": "array", "items": text},
                "platform": text,
                "inputs": {"type": "array", "items": {"type": "object"}},
                "outputs": {"type": "array", "items": {"type": "object"}},
            }
        ),
        "ServerMetadata": object_of(
            {"name": text, "version": text, "extensions": {"type": "array", "items": text}}
        ),
        "Ready": object_of({"ready": {"const": True}}),
        "Live": object_of({"live": {"const": True}}),
        "Status": object_of({"status": text}),
        "Error": object_of({"error": object_of({"code": text, "message": text}, closed=True)}, closed=True),
    }
