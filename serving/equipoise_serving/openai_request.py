"""Bodies of `/v1/completions` and `/v1/chat/completions`, read strictly: what is not understood is a 400."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Any, NoReturn

from equipoise_serving.errors import RequestError
from equipoise_serving.json_body import decode_object

_SHARED = ("model", "stream", "stream_options", "stop", "seed", "n", "max_tokens", "temperature", "top_p")
IGNORED = ("user", "metadata", "store")
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logit_bias": ({},),
    "logprobs": (False,),
    "best_of": (1,),
    "echo": (False,),
    "suffix": ("",),
    "top_logprobs": (0,),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "parallel_tool_calls": (True, False),
    "response_format": ({"type": "text"},),
}
"""Fields that are taken where they change nothing, and refused otherwise."""
ROLES = ("system", "developer", "user", "assistant")
_SEEDS = 2**63


@dataclass(frozen=True)
class WriteRequest:
    """What is asked for, in either protocol."""

    prompts: tuple[str | tuple[int, ...], ...]
    """Texts or token ids; empty for a chat."""
    messages: tuple[dict[str, str], ...]
    stream: bool
    include_usage: bool
    stops: tuple[str, ...]
    seed: int
    n: int
    max_tokens: int | None
    temperature: float
    top_p: float


def parse_request(body: bytes, model_name: str, *, chat: bool) -> WriteRequest:
    """The request of a body.

    Raises:
        RequestError: 400 with the path of the field, or 404 `model_not_found`.
    """
    given = decode_object(body)
    own = ("messages", "max_completion_tokens") if chat else ("prompt",)
    for name, value in given.items():
        if name in NEUTRAL:
            if value is not None and not any(_same(value, neutral) for neutral in NEUTRAL[name]):
                _refuse(name, "is not supported here; leave it out", "unsupported_parameter")
        elif name not in (*_SHARED, *own, *IGNORED):
            _refuse(name, "is not a field of this request", "unknown_parameter")
    model = given.get("model")
    if not isinstance(model, str):
        _refuse("model", f"must be a string: {model_name!r}")
    if model != model_name:
        raise RequestError(
            404, "model_not_found", f"no such model here; {model_name!r} is served", param="model"
        )
    stream = _boolean(given, "stream")
    limit = _integer(given, "max_tokens", 1, _SEEDS)
    if chat:
        limit = _integer(given, "max_completion_tokens", 1, _SEEDS) or limit
    seed = _integer(given, "seed", -_SEEDS, _SEEDS - 1)
    return WriteRequest(
        prompts=() if chat else _prompts(given),
        messages=_messages(given) if chat else (),
        stream=stream,
        include_usage=_include_usage(given, stream),
        stops=_stops(given),
        seed=secrets.randbits(62) if seed is None else seed,
        n=_integer(given, "n", 1, 128) or 1,
        max_tokens=limit,
        temperature=_number(given, "temperature", 2.0),
        top_p=_number(given, "top_p", 1.0),
    )


def _refuse(path: str, problem: str, code: str = "invalid_request") -> NoReturn:
    raise RequestError(400, code, f"{path} {problem}", param=path)


def _same(value: Any, neutral: Any) -> bool:
    # To Python 0 is False and 1 is True; a client that mixes them up is told.
    return value == neutral and isinstance(value, bool) == isinstance(neutral, bool)


def _boolean(given: dict[str, Any], name: str) -> bool:
    value = given.get(name)
    if value is not None and not isinstance(value, bool):
        _refuse(name, "must be true or false")
    return bool(value)


def _integer(given: dict[str, Any], name: str, least: int, most: int) -> int | None:
    value = given.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        _refuse(name, f"must be a whole number, from {least} to {most}")
    return value


def _number(given: dict[str, Any], name: str, most: float) -> float:
    value = given.get(name)
    if value is None:
        return 1.0
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= most:
        _refuse(name, f"must be a number from 0 to {most:g}")
    return float(value)


def _text(value: Any, path: str) -> str:
    if not isinstance(value, str):
        _refuse(path, "must be a string")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        _refuse(path, "has half a surrogate pair", "invalid_text")
    return value


def _stops(given: dict[str, Any]) -> tuple[str, ...]:
    value = given.get("stop")
    found = [] if value is None else value if isinstance(value, list) else [value]
    if len(found) > 4:
        _refuse("stop", "must hold at most 4 texts")
    for place, stop in enumerate(found):
        path = f"stop[{place}]" if isinstance(value, list) else "stop"
        if not _text(stop, path):
            _refuse(path, "must not be empty")
    return tuple(found)


def _include_usage(given: dict[str, Any], stream: bool) -> bool:
    options = given.get("stream_options")
    if options is None:
        return False
    if not stream:
        _refuse("stream_options", "goes with stream: true alone")
    if not isinstance(options, dict):
        _refuse("stream_options", "must be an object")
    for name in options:
        if name not in ("include_usage", "include_obfuscation"):
            _refuse(f"stream_options.{name}", "is not a field of this request", "unknown_parameter")
    found = options.get("include_usage")
    if found is not None and not isinstance(found, bool):
        _refuse("stream_options.include_usage", "must be true or false")
    return bool(found)


def _prompts(given: dict[str, Any]) -> tuple[str | tuple[int, ...], ...]:
    value = given.get("prompt")
    if isinstance(value, str):
        return (_text(value, "prompt"),)
    if not isinstance(value, list) or not value:
        _refuse("prompt", "must be a string, a list of strings, or a list of token ids")
    if all(isinstance(each, int) and not isinstance(each, bool) for each in value):
        return (tuple(value),)
    return tuple(_text(each, f"prompt[{place}]") for place, each in enumerate(value))


def _messages(given: dict[str, Any]) -> tuple[dict[str, str], ...]:
    value = given.get("messages")
    if not isinstance(value, list) or not value:
        _refuse("messages", "must be a list of at least one message")
    return tuple(_message(each, f"messages[{place}]") for place, each in enumerate(value))


def _message(value: Any, path: str) -> dict[str, str]:
    if not isinstance(value, dict):
        _refuse(path, "must be an object")
    for name in value:
        if name not in ("role", "content", "name"):
            _refuse(f"{path}.{name}", "is not supported here", "unsupported_parameter")
    role = value.get("role")
    if not isinstance(role, str) or role not in ROLES:
        _refuse(f"{path}.role", f"must be one of {', '.join(ROLES)}")
    content = value.get("content")
    if isinstance(content, list):
        parts = [_part(part, f"{path}.content[{place}]") for place, part in enumerate(content)]
        content = "".join(parts)
    return {
        "role": "system" if role == "developer" else role,
        "content": _text(content, f"{path}.content"),
    }


def _part(value: Any, path: str) -> str:
    if not isinstance(value, dict) or value.get("type") != "text":
        _refuse(path, 'must be {"type": "text", "text": "…"}')
    return _text(value.get("text"), f"{path}.text")
