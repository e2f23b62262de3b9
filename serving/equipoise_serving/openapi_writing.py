"""What the OpenAPI document says of a language model: OpenAI's protocol, as far as it is obeyed here."""

from __future__ import annotations

from equipoise_serving.card import ModelCard
from equipoise_serving.openai_request import IGNORED, NEUTRAL, ROLES
from equipoise_serving.openapi_parts import Schema, get, object_of, post, ref

_TEXT: Schema = {"type": "string"}
_COUNT: Schema = {"type": "integer", "minimum": 0}
_MISSING = "The model that is named is not served here."


def writing_paths(card: ModelCard) -> Schema:
    """Operations of a model that writes."""
    found: Schema = {
        "/v1/models": {"get": get("models", "The models that are served", "Models", card)},
        f"/v1/models/{card.name}": {"get": get("model", "The model that is served", "Model", card)},
    }
    for path, words, request, answer in (
        ("completions", "Write what follows a prompt", "CompletionRequest", "Completion"),
        ("chat/completions", "Answer a conversation", "ChatRequest", "ChatCompletion"),
    ):
        operation = post(path.replace("/", "_"), words, request, answer, card)
        operation["description"] = "As OpenAI's API has it; a stream of events where `stream` is true."
        operation["responses"]["200"]["content"]["text/event-stream"] = {}
        missing = {"description": _MISSING, "content": {"application/json": {"schema": ref("Error")}}}
        operation["responses"]["404"] = missing
        found[f"/v1/{path}"] = {"post": operation}
    return found


def writing_schemas(card: ModelCard) -> dict[str, Schema]:
    """Bodies of those operations, and OpenAI's form of an error, on every route."""
    finish: Schema = {"enum": ["stop", "length"]}
    usage = object_of(
        {"prompt_tokens": _COUNT, "completion_tokens": _COUNT, "total_tokens": _COUNT}, closed=True
    )
    answer: Schema = {"id": _TEXT, "created": _COUNT, "model": {"const": card.name}, "usage": usage}
    choice: Schema = {"index": _COUNT, "finish_reason": finish, "logprobs": {"type": "null"}}
    message = object_of({"role": {"const": "assistant"}, "content": _TEXT, "refusal": {"type": "null"}})
    model = object_of({"id": {"const": card.name}, "object": {"const": "model"}, "owned_by": _TEXT})
    limit = _nullable({"type": "integer", "minimum": 1})
    return {
        "CompletionRequest": object_of(
            {"model": {"const": card.name}, "prompt": _prompt()}, optional=_options(), closed=True
        ),
        "ChatRequest": object_of(
            {"model": {"const": card.name}, "messages": _list(_message())},
            optional=_options() | {"max_completion_tokens": limit},
            closed=True,
        ),
        "Completion": object_of(
            answer
            | {"object": {"const": "text_completion"}, "choices": _list(object_of(choice | {"text": _TEXT}))}
        ),
        "ChatCompletion": object_of(
            answer
            | {
                "object": {"const": "chat.completion"},
                "choices": _list(object_of(choice | {"message": message})),
            }
        ),
        "Models": object_of({"object": {"const": "list"}, "data": _list(model)}),
        "Model": model,
        "Error": object_of(
            {
                "error": object_of(
                    {"message": _TEXT, "type": _TEXT, "param": _nullable(_TEXT), "code": _TEXT}, closed=True
                )
            },
            closed=True,
        ),
    }


def _options() -> Schema:
    """Fields that both requests may have."""
    whole: Schema = {"type": "integer"}
    flags = object_of(
        {}, optional={"include_usage": _nullable({"type": "boolean"}), "include_obfuscation": {}}, closed=True
    )
    stop = {"type": "string", "minLength": 1}
    neutral: Schema = {
        name: {"enum": [*values, None], "description": "Taken where it changes nothing."}
        for name, values in NEUTRAL.items()
    }
    return (
        neutral
        | {name: {} for name in IGNORED}
        | {
            "stream": _nullable({"type": "boolean"}),
            "stream_options": _nullable(flags),
            "stop": {"anyOf": [stop, {"type": "array", "items": stop, "maxItems": 4}, {"type": "null"}]},
            "seed": _nullable(whole | {"minimum": -(2**63), "maximum": 2**63 - 1}),
            "n": _nullable(whole | {"minimum": 1, "maximum": 128}),
            "max_tokens": _nullable(whole | {"minimum": 1}),
            "temperature": _nullable({"type": "number", "minimum": 0, "maximum": 2}),
            "top_p": _nullable({"type": "number", "minimum": 0, "maximum": 1}),
        }
    )


def _prompt() -> Schema:
    return {"anyOf": [_TEXT, _list(_TEXT), _list({"type": "integer"})]}


def _message() -> Schema:
    part: Schema = object_of({"type": {"const": "text"}, "text": _TEXT})
    content: Schema = {"anyOf": [_TEXT, {"type": "array", "items": part}]}
    return object_of({"role": {"enum": list(ROLES)}, "content": content}, optional={"name": {}}, closed=True)


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items, "minItems": 1}


def _nullable(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}
