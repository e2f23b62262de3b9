"""JSON of request bodies, read strictly, without pydantic: this is the hot path."""

from __future__ import annotations

import json
from typing import Any, NoReturn

import orjson

from equipoise_serving.errors import RequestError, bad_request

MAX_INPUTS = 1024
"""Rows that one request may carry, unless the config says otherwise."""


def _reject_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(parse_constant=_reject_constant)


def decode_object(body: bytes) -> dict[str, Any]:
    """A JSON object in UTF-8.

    Raises:
        RequestError: 400 `invalid_encoding`, `invalid_json` or `invalid_request`.
    """
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        value = _decode_slowly(body)
    if not isinstance(value, dict):
        raise bad_request("the body must be a JSON object")
    return value


def _decode_slowly(body: bytes) -> Any:
    """What the fast parser refused, read again by one that says why."""
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise bad_request(f"the body is not UTF-8 at byte {error.start}", "invalid_encoding") from None
    try:
        return _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise bad_request(
            f"the body is not JSON: {error.msg} at character {error.pos}", "invalid_json"
        ) from None
    except RecursionError:
        raise bad_request("the body is nested too deeply", "invalid_json") from None
    except ValueError:
        # NaN, Infinity, and integers of more digits than Python converts.
        raise bad_request("the body has a number that JSON does not allow", "invalid_json") from None


def check_texts(values: list[Any], where: str, max_inputs: int = MAX_INPUTS) -> list[str]:
    """Texts that the tokenizer takes: strings without lone surrogates, between 1 and `max_inputs`.

    Raises:
        RequestError: 400 `invalid_request` or `invalid_text`, or 413 `too_many_inputs`.
    """
    if not values:
        raise bad_request(f"{where} is empty")
    if len(values) > max_inputs:
        raise RequestError(
            413, "too_many_inputs", f"{where} has {len(values)} entries; at most {max_inputs} are taken"
        )
    for position, value in enumerate(values):
        if not isinstance(value, str):
            raise bad_request(f"{where} must hold strings; entry {position} is {_kind(value)}")
        if not value.isascii():
            try:
                value.encode("utf-8")
            except UnicodeEncodeError:
                # JSON can escape half a surrogate pair; one such row would fail its whole batch.
                raise bad_request(
                    f"entry {position} of {where} has half a surrogate pair", "invalid_text"
                ) from None
    return values


def _kind(value: Any) -> str:
    names = {bool: "a boolean", int: "a number", float: "a number", list: "a list", dict: "an object"}
    return names.get(type(value), "null")
