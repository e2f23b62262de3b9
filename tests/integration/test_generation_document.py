"""A language model's endpoint, asked what its own document promises, and whatever is not meant for it."""

from __future__ import annotations

import contextlib
import gzip
import json
import socket
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import openai
import pytest
import schemathesis
from hypothesis import HealthCheck, given, seed, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

from equipoise.bundle import Bundle
from equipoise.engines.generation import open_generation_engine
from equipoise.tasks.text_generation import TextGeneration
from equipoise_serving.api_keys import ApiKeys, create_key
from equipoise_serving.card import ModelCard
from equipoise_serving.gateway import Gateway
from equipoise_serving.text_writer import TextWriter

PATHS = ("/v1/completions", "/v1/chat/completions")


@dataclass
class Counted:
    """What the endpoint counted."""

    statuses: list[int] = field(default_factory=list)
    tokens: list[tuple[int, int]] = field(default_factory=list)


@contextlib.contextmanager
def serving(
    bundle: Bundle,
    serve_app: Callable[[Any], Any],
    keys: ApiKeys | None,
    timeout_s: float = 20,
    max_waiting: int = 256,
) -> Iterator[tuple[str, Counted]]:
    """The bundle behind uvicorn; its address, and what it counts."""
    task = bundle.load_task()
    assert isinstance(task, TextGeneration)
    engine = open_generation_engine(
        bundle.manifest.engine, bundle.model_folder, "fp32", max_sequences=8, max_cached_tokens=1024
    )
    counted = Counted()
    writer = TextWriter(
        "tiny",
        task,
        engine,
        stop_ids=engine.stop_ids(task.end_id),
        max_new_tokens=8,
        max_choices=8,
        max_waiting=max_waiting,
        count_tokens=lambda prompt, answer: counted.tokens.append((prompt, answer)),
    )
    card = ModelCard(
        name="tiny",
        task="text_generation",
        engine=bundle.manifest.engine,
        precision="fp32",
        labels=(),
        max_body_bytes=16_384,
        max_inputs=8,
        needs_key=keys is not None,
    )
    gateway = Gateway(card, None, counted.statuses.append, timeout_s=timeout_s, writer=writer, keys=keys)
    with serve_app(gateway) as url:
        yield url, counted


@pytest.fixture(scope="module")
def url(writers: dict[str, Bundle], serve_app: Callable[[Any], Any]) -> Iterator[str]:
    with serving(writers["openvino"], serve_app, None) as (found, _):
        yield found


@pytest.fixture(scope="module")
def document(url: str) -> Any:
    """The endpoint's own document, loaded from it."""
    refused = {"expected-statuses": [400, 404, 405, 408, 413, 415]}
    config = schemathesis.Config.from_dict({"checks": {"negative_data_rejection": refused}})
    return schemathesis.openapi.from_url(f"{url}/openapi.json", config=config)


def check_every_operation(document: Any, examples: int) -> int:
    """Send so many requests to each operation and of each kind, as documented and not; returns how many."""
    operations = [found.ok() for found in document.get_all_operations()]
    return sum(check(operation, mode, examples) for operation in operations for mode in GenerationMode)


def check(operation: Any, mode: GenerationMode, examples: int) -> int:
    sent = 0
    # How many tokens a prompt has is more than a JSON schema can say.
    unsayable = [positive_data_acceptance] if operation.path in PATHS else []

    @seed(13)
    @settings(max_examples=examples, suppress_health_check=list(HealthCheck), database=None)
    @given(case=operation.as_strategy(generation_mode=mode))
    def hold(case: Any) -> None:
        nonlocal sent
        sent += 1
        response = case.call(timeout=20)
        assert response.status_code < 500
        case.validate_response(response, excluded_checks=unsayable)

    # An operation without parameters cannot be asked wrongly.
    with contextlib.suppress(Unsatisfiable):
        hold()
    return sent


def test_every_answer_is_one_that_the_document_allows(document: Any) -> None:
    assert set(PATHS) <= set(document.raw_schema["paths"])
    assert not {"/v1/predict", "/v2/models/tiny/infer"} & set(document.raw_schema["paths"])
    assert check_every_operation(document, examples=40) > 150


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_ten_thousand_requests_get_no_other_answer(document: Any) -> None:
    assert check_every_operation(document, examples=2600) >= 10_000


def post(url: str, body: bytes, **headers: str) -> tuple[int, Any]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(url, body, {"content-type": "application/json", **named})
    try:
        with urllib.request.urlopen(request, timeout=20) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def body_of(path: str, **change: Any) -> bytes:
    """A body that is answered, with a change."""
    asked = {"messages": [{"role": "user", "content": "a"}]} if "chat" in path else {"prompt": "a"}
    return json.dumps({"model": "tiny", "max_tokens": 2, **asked, **change}).encode()


DEEP = b"[" * 4000 + b"]" * 4000
BOMB = gzip.compress(b'{"prompt": "' + b"a" * 2**24 + b'"}')


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("body", "headers", "status", "code"),
    [
        (b"", {}, 400, "invalid_json"),
        (b"{", {}, 400, "invalid_json"),
        (b"[]", {}, 400, "invalid_request"),
        (b'{"model": "tiny", "temperature": NaN}', {}, 400, "invalid_json"),
        (b'{"model": "tiny", "temperature": Infinity}', {}, 400, "invalid_json"),
        (b'{"model": "tiny", "temperature": 1e999}', {}, 400, "invalid_request"),
        (b'{"model": "tiny", "seed": 1' + b"0" * 5000 + b"}", {}, 400, "invalid_json"),
        (b'{"model": "\xff"}', {}, 400, "invalid_encoding"),
        (b'{"model": "tiny", "prompt": "\xed\xa0\x80"}', {}, 400, "invalid_encoding"),
        (DEEP, {}, 400, "invalid_json"),
        (b'{"model": "tiny", "prompt": ' + DEEP + b"}", {}, 400, "invalid_json"),
        (b'{"model": "tiny", "prompt": "' + b"a" * 20_000 + b'"}', {}, 413, "body_too_large"),
        (BOMB, {"content_encoding": "gzip"}, 415, "unsupported_encoding"),
        (BOMB[:1000], {}, 400, "invalid_encoding"),
        (b"prompt=a", {"content_type": "application/x-www-form-urlencoded"}, 415, "unsupported_media_type"),
        (b"{}", {"inference_header_content_length": "2"}, 415, "binary_not_supported"),
    ],
)
def test_a_malformed_body_is_refused_and_the_next_one_answered(
    url: str, path: str, body: bytes, headers: dict[str, str], status: int, code: str
) -> None:
    found, answer = post(url + path, body, **headers)
    assert (found, answer["error"]["code"]) == (status, code), answer
    assert set(answer["error"]) == {"message", "type", "param", "code"}
    assert post(url + path, body_of(path))[0] == 200


@pytest.mark.parametrize("path", PATHS)
def test_a_client_that_sends_slowly_is_not_waited_for(
    path: str, writers: dict[str, Bundle], serve_app: Callable[[Any], Any]
) -> None:
    with serving(writers["openvino"], serve_app, None, timeout_s=0.5) as (url, counted):
        host, port = url.removeprefix("http://").split(":")
        head = f"POST {path} HTTP/1.1\r\nhost: tiny\r\ncontent-type: application/json\r\n"
        with socket.create_connection((host, int(port)), timeout=20) as connection:
            connection.sendall(head.encode() + b'content-length: 100\r\n\r\n{"model"')
            answer = connection.recv(65_536)
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert counted.statuses == [408]
        # Nor is one that leaves in the middle of its body, which nobody is told of.
        with socket.create_connection((host, int(port)), timeout=20) as connection:
            connection.sendall(head.encode() + b'content-length: 100\r\n\r\n{"model"')
        assert post(url + "/v1/completions", body_of("/v1/completions", max_tokens=1))[0] == 200
        assert counted.statuses == [408, 200]


@pytest.mark.parametrize("path", PATHS)
def test_what_would_wait_too_long_is_told_when_to_come_again(
    path: str, writers: dict[str, Bundle], serve_app: Callable[[Any], Any]
) -> None:
    with serving(writers["openvino"], serve_app, None, max_waiting=1) as (url, counted):
        request = urllib.request.Request(url + path, body_of(path, n=2), {"content-type": "application/json"})
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request, timeout=20)
        with refused.value as answer:
            assert (answer.code, answer.headers["retry-after"]) == (429, "1")
            error = json.load(answer)["error"]
        assert (error["code"], error["type"]) == ("overloaded", "rate_limit_error")
        assert post(url + path, body_of(path))[0] == 200
        assert counted.statuses == [429, 200]


def test_only_who_has_a_key_is_answered_and_every_token_is_counted(
    writers: dict[str, Bundle], serve_app: Callable[[Any], Any], tmp_path: Path
) -> None:
    key, _ = create_key(tmp_path / "keys.json", "shop")
    with serving(writers["openvino"], serve_app, ApiKeys(tmp_path / "keys.json")) as (url, counted):
        for path in PATHS:
            for headers in ({}, {"authorization": "Bearer eqp_wrong"}, {"x_api_key": "wrong"}):
                status, answer = post(url + path, body_of(path), **headers)
                assert (status, answer["error"]["code"]) == (401, "unauthorized")
                assert answer["error"]["type"] == "authentication_error"
        assert (counted.statuses, counted.tokens) == ([401] * 6, [])
        with pytest.raises(urllib.error.HTTPError, match="401") as listed:
            urllib.request.urlopen(f"{url}/v1/models", timeout=20)
        listed.value.close()
        assert post(f"{url}/v1/completions", body_of("completions"), x_api_key=key)[0] == 200
        counted.tokens.clear()
        counted.statuses.clear()

        usages = []
        with openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0) as client:
            chat: Any = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}]}
            asked: Any = {"model": "tiny", "prompt": ["a", "a parcel"], "n": 2, "seed": 4, "max_tokens": 5}
            usages += [client.completions.create(**asked).usage, client.chat.completions.create(**chat).usage]
            with_usage: Any = {"stream": True, "stream_options": {"include_usage": True}}
            usages += [list(client.completions.create(**asked, **with_usage))[-1].usage]
            usages += [list(client.chat.completions.create(**chat, **with_usage))[-1].usage]
        expected = [(usage.prompt_tokens, usage.completion_tokens) for usage in usages]
        assert counted.tokens == expected
        assert counted.statuses == [200] * 4
        assert expected[0] == expected[2]
        task: Any = writers["openvino"].load_task()
        read = [len(task.tokenizer.encode(text).ids) for text in ("a", "a parcel")]
        assert expected[0][0] == sum(read)
        assert expected[1][0] == len(task.chat_ids(chat["messages"]))
