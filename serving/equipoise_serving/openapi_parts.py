"""Pieces of an OpenAPI document: operations with every status that they have, and schemas."""

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


def post(identifier: str, summary: str, request: str, answer: str, card: ModelCard) -> Schema:
    """An operation with a body.

    Args:
        request: name of the body's schema; `answer` likewise.
        card: whether it asks for a key.
    """
    statuses = [status for status in _ERRORS if status != 401 or card.needs_key]
    operation: Schema = {
        "operationId": identifier,
        "summary": summary,
        "requestBody": {"required": True, "content": {"application/json": {"schema": ref(request)}}},
        "responses": {"200": _response("The answer.", answer)} | _errors(statuses),
    }
    return operation | ({"security": _SECURITY} if card.needs_key else {})


def get(identifier: str, summary: str, answer: str, card: ModelCard | None = None) -> Schema:
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
        "content": {"application/json": {"schema": ref(schema)}},
    }


def object_of(required: Schema, *, optional: Schema | None = None, closed: bool = False) -> Schema:
    """An object's schema; closed, it takes no other key."""
    found: Schema = {"type": "object", "required": list(required), "properties": required | (optional or {})}
    return found | ({"additionalProperties": False} if closed else {})


def ref(name: str) -> Schema:
    """A reference to a named schema."""
    return {"$ref": f"#/components/schemas/{name}"}
