"""Bodies are read strictly, and every fault has a stable code."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from equipoise_serving.errors import RequestError
from equipoise_serving.json_body import MAX_INPUTS, check_texts, decode_object


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "invalid_json"),
        (b"{", "invalid_json"),
        (b'{"a": 1} x', "invalid_json"),
        (b"{'a': 1}", "invalid_json"),
        (b'{"a": NaN}', "invalid_json"),
        (b'{"a": Infinity}', "invalid_json"),
        (b'{"a": -Infinity}', "invalid_json"),
        (b'{"a": ' + b"9" * 5000 + b"}", "invalid_json"),
        (b"[" * 100_000, "invalid_json"),
        (b'{"a":' * 100_000, "invalid_json"),
        (b'{"a": "\xff"}', "invalid_encoding"),
        ("{}".encode("utf-16"), "invalid_encoding"),
        (b"[]", "invalid_request"),
        (b'"text"', "invalid_request"),
        (b"null", "invalid_request"),
    ],
)
def test_faulty_body_is_a_400_with_a_code(body: bytes, code: str) -> None:
    with pytest.raises(RequestError) as caught:
        decode_object(body)
    assert (caught.value.status, caught.value.code) == (400, code)
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("values", "status", "code"),
    [
        ([], 400, "invalid_request"),
        ([1], 400, "invalid_request"),
        (["a", None], 400, "invalid_request"),
        ([["a"]], 400, "invalid_request"),
        ([True], 400, "invalid_request"),
        (["\ud800"], 400, "invalid_text"),
        (["a"] * (MAX_INPUTS + 1), 413, "too_many_inputs"),
    ],
)
def test_what_is_no_text_is_refused(values: list[Any], status: int, code: str) -> None:
    with pytest.raises(RequestError) as caught:
        check_texts(values, "inputs")
    assert (caught.value.status, caught.value.code) == (status, code)


@given(st.lists(st.text(), min_size=1, max_size=5))
def test_every_list_of_texts_comes_through_unchanged(texts: list[str]) -> None:
    body = json.dumps({"inputs": texts}).encode()
    assert check_texts(decode_object(body)["inputs"], "inputs") == texts


@given(st.binary(max_size=200))
def test_any_bytes_give_an_object_or_a_request_error(body: bytes) -> None:
    with suppress(RequestError):
        assert isinstance(decode_object(body), dict)
