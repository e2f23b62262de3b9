"""Headers that clients may not hand to Serve."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from equipoise_serving.ingress import clean_headers, middlewares

OURS = (b"x-request-disconnect-disabled", b"?1")
NAMES = st.sampled_from(
    [
        b"x-request-id",
        b"x-request-timeout-seconds",
        b"x-request-disconnect-disabled",
        b"serve_multiplexed_model_id",
        b"accept",
    ]
)


def test_serve_is_pointed_to_one_middleware() -> None:
    assert [middleware.cls.__name__ for middleware in middlewares()] == ["Ingress"]


@pytest.mark.parametrize("value", [b"abc-123", b"!", b"~" * 128])
def test_a_well_formed_request_id_is_kept(value: bytes) -> None:
    assert clean_headers([(b"x-request-id", value)]) == [OURS, (b"x-request-id", value)]


@pytest.mark.parametrize("value", [b"", b"a b", b"\xff", b"a\nb", b"a" * 129])
def test_any_other_request_id_is_not(value: bytes) -> None:
    assert clean_headers([(b"x-request-id", value)]) == [OURS]


@given(st.lists(st.tuples(NAMES, st.binary(max_size=20))))
def test_what_is_left_can_be_read_by_serve(headers: list[tuple[bytes, bytes]]) -> None:
    left = clean_headers(headers)
    assert left[0] == OURS
    assert {name for name, _ in left[1:]} <= {b"x-request-id", b"accept"}
    ids = [value for name, value in left if name == b"x-request-id"]
    assert len(ids) <= 1
    assert all(value.decode("utf-8").isprintable() for value in ids)
    assert [pair for pair in left if pair[0] == b"accept"] == [p for p in headers if p[0] == b"accept"]
