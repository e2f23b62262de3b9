"""OpenAI's own client, unmodified, against a language model behind a real HTTP server on loopback."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import openai
import pytest

from equipoise.bundle import Bundle
from equipoise.engines.batched_generation import BatchedGeneration
from equipoise.engines.generation import GenerationParams, open_generation_engine
from equipoise.engines.torch_writer import TorchWriter, open_writer
from equipoise.tasks.text_generation import TextGeneration
from equipoise_serving.card import ModelCard
from equipoise_serving.gateway import Gateway
from equipoise_serving.text_writer import TextWriter


@dataclass
class Endpoint:
    """A served language model, and what was counted of it."""

    task: TextGeneration
    engine: BatchedGeneration
    writer: TorchWriter
    url: str = ""
    statuses: list[int] = field(default_factory=list)
    tokens: list[tuple[int, int]] = field(default_factory=list)

    def alone(self, prompt: str, count: int) -> str:
        """The likeliest text, written by torch and by itself."""
        ids = self.task.tokenizer.encode(prompt).ids
        params = GenerationParams(max_tokens=count, stop_ids=self.engine.stop_ids(self.task.end_id))
        return self.task.text_of([token.id for token in self.writer.write(ids, params)])


@pytest.fixture(scope="module", params=["torch", "openvino"])
def served(
    request: pytest.FixtureRequest, writers: dict[str, Bundle], serve_app: Callable[[Any], Any]
) -> Iterator[Endpoint]:
    bundle = writers[request.param]
    task = bundle.load_task()
    assert isinstance(task, TextGeneration)
    engine = open_generation_engine(
        request.param, bundle.model_folder, "fp32", max_sequences=4, max_cached_tokens=512
    )
    found = Endpoint(task, engine, open_writer(writers["torch"].model_folder, "fp32"))
    writer = TextWriter(
        "tiny",
        task,
        engine,
        stop_ids=engine.stop_ids(task.end_id),
        max_new_tokens=48,
        max_choices=4,
        count_tokens=lambda prompt, answer: found.tokens.append((prompt, answer)),
        usd_per_core_second=1e-5,
    )
    card = ModelCard(
        name="tiny",
        task="text_generation",
        engine=request.param,
        precision="fp32",
        labels=(),
        max_body_bytes=8192,
        max_inputs=4,
        needs_key=False,
    )
    gateway = Gateway(card, None, found.statuses.append, timeout_s=20, writer=writer)
    with serve_app(gateway) as found.url:
        yield found


@pytest.fixture(scope="module")
def client(served: Endpoint) -> Iterator[Any]:
    found = openai.OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0)
    try:
        yield found
    finally:
        found.close()


def post(url: str, body: bytes) -> tuple[int, Any]:
    request = urllib.request.Request(url, body, {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=20) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def test_the_model_is_listed(client: Any) -> None:
    assert [model.id for model in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").owned_by == "equipoise"


def test_a_completion_is_the_text_written_alone(served: Endpoint, client: Any) -> None:
    found = client.completions.create(model="tiny", prompt="my parcel", max_tokens=12, temperature=0)
    assert found.choices[0].text == served.alone("my parcel", 12)
    count = len(served.task.tokenizer.encode("my parcel").ids)
    assert found.usage.prompt_tokens == count
    assert found.usage.total_tokens == count + found.usage.completion_tokens
    assert found.choices[0].finish_reason == ("length" if found.usage.completion_tokens == 12 else "stop")
    assert served.tokens[-1] == (count, found.usage.completion_tokens)
    assert served.statuses[-1] == 200


def test_a_stream_says_the_same_piece_by_piece(served: Endpoint, client: Any) -> None:
    options = {"model": "tiny", "prompt": "my parcel", "max_tokens": 24, "temperature": 1.1, "seed": 5}
    whole = client.completions.create(**options)
    events = list(client.completions.create(**options, stream=True, stream_options={"include_usage": True}))
    assert "".join(event.choices[0].text for event in events[:-1]) == whole.choices[0].text
    assert events[-2].choices[0].finish_reason == whole.choices[0].finish_reason
    assert events[-1].choices == []
    assert events[-1].usage == whole.usage
    assert client.completions.create(**options | {"seed": 6}).choices[0].text != whole.choices[0].text


def test_a_chat_and_its_stream(served: Endpoint, client: Any) -> None:
    options: dict[str, Any] = {
        "model": "tiny",
        "messages": [{"role": "user", "content": "hello"}],
        "max_completion_tokens": 10,
        "temperature": 0,
    }
    whole = client.chat.completions.create(**options)
    assert whole.choices[0].message.role == "assistant"
    assert whole.choices[0].message.content == served.alone("user: hello\nassistant:", 10)
    events = list(client.chat.completions.create(**options, stream=True))
    assert events[0].choices[0].delta.role == "assistant"
    assert "".join(event.choices[0].delta.content or "" for event in events) == (
        whole.choices[0].message.content
    )


def test_a_stop_sequence_ends_the_text_and_is_never_sent(served: Endpoint, client: Any) -> None:
    text = served.alone("my parcel", 24)
    stop = text[8:11]
    options = {"model": "tiny", "prompt": "my parcel", "max_tokens": 24, "temperature": 0, "stop": [stop]}
    found = client.completions.create(**options).choices[0]
    assert (found.text, found.finish_reason) == (text[: text.index(stop)], "stop")
    events = list(client.completions.create(**options, stream=True))
    assert "".join(event.choices[0].text for event in events) == found.text


def test_several_answers_of_one_request(served: Endpoint, client: Any) -> None:
    found = client.completions.create(
        model="tiny", prompt=["my parcel", "a"], n=2, max_tokens=6, temperature=1.2, seed=3
    )
    assert [choice.index for choice in found.choices] == [0, 1, 2, 3]
    assert len({choice.text for choice in found.choices}) > 2


def test_a_client_that_leaves_frees_its_slot(served: Endpoint, client: Any) -> None:
    for _ in range(8):
        stream = client.completions.create(model="tiny", prompt="a", max_tokens=48, stream=True)
        next(iter(stream))
        stream.close()
    deadline = time.monotonic() + 10
    while served.engine._queues and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not served.engine._queues
    assert client.completions.create(model="tiny", prompt="a", max_tokens=4).usage.completion_tokens <= 4


def test_an_error_is_one_that_the_client_knows(client: Any) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        client.completions.create(model="other", prompt="a")
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as long:
        client.completions.create(model="tiny", prompt="where is my parcel " * 40)
    assert (long.value.code, long.value.param) == ("context_length_exceeded", "prompt")


CHAT = [{"role": "user", "content": "a"}]


@pytest.mark.parametrize(
    ("path", "change", "param"),
    [
        ("completions", {"prompt": 5}, "prompt"),
        ("completions", {"prompt": []}, "prompt"),
        ("completions", {"prompt": ""}, "prompt"),
        ("completions", {"prompt": ["a", 5]}, "prompt[1]"),
        ("completions", {"prompt": [10**9]}, "prompt"),
        ("completions", {"prompt": "\ud800"}, "prompt"),
        ("completions", {"max_tokens": 0}, "max_tokens"),
        ("completions", {"max_tokens": True}, "max_tokens"),
        ("completions", {"max_tokens": 49}, "max_tokens"),
        ("completions", {"temperature": -0.1}, "temperature"),
        ("completions", {"temperature": "1"}, "temperature"),
        ("completions", {"top_p": 1.5}, "top_p"),
        ("completions", {"seed": 2**64}, "seed"),
        ("completions", {"seed": 1.5}, "seed"),
        ("completions", {"stop": ["a", ""]}, "stop[1]"),
        ("completions", {"stop": ["a"] * 5}, "stop"),
        ("completions", {"stream": 1}, "stream"),
        ("completions", {"stream_options": {}}, "stream_options"),
        ("completions", {"n": 5}, "n"),
        ("completions", {"logprobs": 3}, "logprobs"),
        ("completions", {"echo": True}, "echo"),
        ("completions", {"nonsense": 1}, "nonsense"),
        ("completions", {"model": None}, "model"),
        ("chat/completions", {"messages": []}, "messages"),
        ("chat/completions", {"messages": ["a"]}, "messages[0]"),
        ("chat/completions", {"messages": [{"role": "king", "content": "a"}]}, "messages[0].role"),
        ("chat/completions", {"messages": [{"role": [], "content": "a"}]}, "messages[0].role"),
        ("chat/completions", {"messages": [{"role": "user", "content": None}]}, "messages[0].content"),
        (
            "chat/completions",
            {"messages": [*CHAT, {"role": "user", "content": [1]}]},
            "messages[1].content[0]",
        ),
        ("chat/completions", {"tools": [{}]}, "tools"),
    ],
)
def test_bad_input_is_a_400_that_names_the_field(
    served: Endpoint, path: str, change: dict[str, Any], param: str
) -> None:
    body = {"model": "tiny"} | ({"messages": CHAT} if path.startswith("chat") else {"prompt": "a"}) | change
    status, answer = post(f"{served.url}/v1/{path}", json.dumps(body).encode())
    assert (status, answer["error"]["param"]) == (400, param), answer
    assert set(answer["error"]) == {"message", "type", "param", "code"}


def test_the_calls_of_the_documents_work_as_they_are_written(
    served: Endpoint, repository: Path, tmp_path: Path
) -> None:
    def read(name: str) -> str:
        page = (repository / "docs" / name).read_text(encoding="utf-8")
        return page.replace("http://127.0.0.1:8000", served.url).replace('"demo"', '"tiny"')

    [call] = re.findall(
        r"^    (curl [^ ]* [^ ]*/v1/completions .*\n      .*)", read("serving.md"), flags=re.MULTILINE
    )
    found = subprocess.run(["bash", "-c", call], capture_output=True, timeout=20, check=True)
    assert json.loads(found.stdout)["object"] == "text_completion"
    [program] = re.findall(r"```python\n(.*?)```", read("text-generation.md"), flags=re.DOTALL)
    (tmp_path / "call.py").write_text(program, encoding="utf-8")
    subprocess.run([sys.executable, tmp_path / "call.py"], capture_output=True, timeout=40, check=True)
    with urllib.request.urlopen(f"{served.url}/openapi.json", timeout=10) as response:
        assert {"/v1/models", "/v1/completions", "/v1/chat/completions"} <= json.load(response)[
            "paths"
        ].keys()


def test_the_page_writes_in_a_browser(served: Endpoint, chromium: Any) -> None:
    page = chromium.new_page()
    try:
        page.goto(served.url)
        page.fill("#text", "a parcel")
        page.click("#send")
        page.wait_for_selector("#answer:not([hidden])")
        assert "tokens" in page.text_content("#label")
        told = page.text_content("#written")
        assert told
        assert "for this request" in page.text_content("#cost")
        assert page.text_content("#error") == ""
    finally:
        page.close()


def test_the_check_of_an_endpoint_lets_a_language_model_write(served: Endpoint) -> None:
    from equipoise.pipeline.endpoint_check import check_endpoint

    (line,) = check_endpoint(served.url, None, text="a parcel")
    assert line == f"tiny answers 'a parcel' with {served.alone('a parcel', 8)!r}"
