"""OpenAI's completions and chat completions over a generation engine."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Protocol

import orjson

from equipoise.engines.generation import GenerationParams, Token
from equipoise.tasks.text_generation import TextGeneration
from equipoise_serving.batching import overloaded
from equipoise_serving.errors import RequestError
from equipoise_serving.http import Headers, Reply, json_reply
from equipoise_serving.openai_request import WriteRequest, parse_request
from equipoise_serving.text_stream import TextStream

_DEFAULT_TOKENS = 16
"""Of a completion, as OpenAI has it; a chat's default is all that fits."""
_DONE = b"data: [DONE]\n\n"
_log = logging.getLogger("ray.serve")


class Engine(Protocol):
    """A generation engine, and how many texts wait in it."""

    max_length: int

    @property
    def waiting(self) -> int: ...

    def generate(self, ids: Any, params: GenerationParams) -> AsyncGenerator[Token, None]: ...


@dataclass
class _Choice:
    """One answer under way."""

    index: int
    ids: list[int]
    params: GenerationParams
    text: TextStream
    tokens: int = 0
    busy_s: float = 0.0
    finish: str = "length"


class TextWriter:
    """Answers both protocols for one model.

    Args:
        name: the model's.
        task: tokenizer, chat template, end of text.
        engine: writes the tokens.
        stop_ids: tokens that end a text.
        max_new_tokens: most tokens of one answer.
        max_choices: most answers of one request.
        max_waiting: texts that may wait; more are refused.
        count_tokens: called with the prompt's and the answer's tokens of each request.
        usd_per_core_second: price of the engine's second; None states no dollars.
    """

    def __init__(
        self,
        name: str,
        task: TextGeneration,
        engine: Engine,
        *,
        stop_ids: tuple[int, ...],
        max_new_tokens: int = 512,
        max_choices: int = 32,
        max_waiting: int = 256,
        count_tokens: Callable[[int, int], None] = lambda prompt, answer: None,
        usd_per_core_second: float | None = None,
    ) -> None:
        self.name = name
        self._task, self._engine, self._stop_ids = task, engine, stop_ids
        self._max_new_tokens, self._max_choices, self._max_waiting = max_new_tokens, max_choices, max_waiting
        self._count_tokens = count_tokens
        self._usd_per_core_second = usd_per_core_second
        self._created = int(time.time())

    def models(self) -> dict[str, Any]:
        """The body of `/v1/models`."""
        return {"object": "list", "data": [self.model()]}

    def model(self) -> dict[str, Any]:
        """The body of `/v1/models/{name}`."""
        return {"id": self.name, "object": "model", "created": self._created, "owned_by": "equipoise"}

    async def answer(self, body: bytes, *, chat: bool) -> tuple[Reply | AsyncGenerator[bytes, None], int]:
        """A whole answer, or the parts of a stream; and the number of texts asked for.

        Raises:
            RequestError: the request is refused.
        """
        request = parse_request(body, self.name, chat=chat)
        # A long text takes the tokenizer seconds, in which others want their tokens.
        prompts = await asyncio.to_thread(self._encode, request)
        choices = self._choices(request, prompts)
        if self._engine.waiting + len(choices) > self._max_waiting:
            raise overloaded(1.0)
        prompt_tokens = sum(map(len, prompts))
        if request.stream:
            return self._stream(request, choices, prompt_tokens, chat=chat), len(choices)
        return await self._whole(choices, prompt_tokens, chat=chat), len(choices)

    def _encode(self, request: WriteRequest) -> list[list[int]]:
        if request.messages:
            try:
                return [self._task.chat_ids(request.messages)]
            except ValueError as error:
                raise RequestError(400, "invalid_messages", str(error), param="messages") from error
        size = self._task.tokenizer.get_vocab_size()
        found = []
        for prompt in request.prompts:
            if not isinstance(prompt, str) and not all(0 <= token < size for token in prompt):
                raise RequestError(
                    400, "invalid_request", f"prompt has a token outside 0 to {size - 1}", param="prompt"
                )
            found.append(self._task.tokenizer.encode(prompt).ids if isinstance(prompt, str) else list(prompt))
        return found

    def _choices(self, request: WriteRequest, prompts: list[list[int]]) -> list[_Choice]:
        where = "messages" if request.messages else "prompt"
        if len(prompts) * request.n > self._max_choices:
            raise RequestError(
                400, "invalid_request", f"at most {self._max_choices} answers are written at once", param="n"
            )
        if request.max_tokens is not None and request.max_tokens > self._max_new_tokens:
            raise RequestError(
                400,
                "invalid_request",
                f"max_tokens is at most {self._max_new_tokens}",
                param="max_tokens",
            )
        found: list[_Choice] = []
        for ids in prompts:
            room = self._engine.max_length - len(ids)
            wanted = request.max_tokens
            if wanted is None:
                most = min(self._max_new_tokens, max(room, 1))
                wanted = most if request.messages else min(_DEFAULT_TOKENS, most)
            if not ids:
                raise RequestError(400, "invalid_request", f"{where} has no token to go on from", param=where)
            if wanted > room:
                raise RequestError(
                    400,
                    "context_length_exceeded",
                    f"{len(ids)} prompt tokens and {wanted} more are over {self._engine.max_length}",
                    param=where,
                )
            for number in range(request.n):
                params = GenerationParams(
                    max_tokens=wanted,
                    temperature=request.temperature,
                    top_p=request.top_p,
                    stop_ids=self._stop_ids,
                    # The same seed gives the same answers, each of them another one.
                    seed=request.seed + number if request.seed + number < 2**63 else number,
                )
                text = TextStream(self._task.tokenizer.decode, request.stops)
                found.append(_Choice(len(found), ids, params, text))
        return found

    async def _parts(self, choice: _Choice) -> AsyncGenerator[str, None]:
        """Texts as they become certain; closed, it gives the rest up."""
        async with aclosing(self._engine.generate(choice.ids, choice.params)) as tokens:
            async for token in tokens:
                choice.tokens += 1
                choice.busy_s += token.busy_s
                ended = token.finish == "stop"
                if not ended and (part := choice.text.push(token.id)):
                    yield part
                if choice.text.stopped or ended:
                    choice.finish = "stop"
                if choice.text.stopped:
                    return
        rest = choice.text.finish()
        if choice.text.stopped:
            choice.finish = "stop"
        if rest:
            yield rest

    async def _write(self, choice: _Choice) -> str:
        async with aclosing(self._parts(choice)) as parts:
            return "".join([part async for part in parts])

    async def _whole(self, choices: list[_Choice], prompt_tokens: int, *, chat: bool) -> Reply:
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._write(choice)) for choice in choices]
        except ExceptionGroup as error:
            _log.exception("a text failed")
            raise RequestError(500, "engine_failed", "the model failed on this text") from error
        kind = "chat.completion" if chat else "text_completion"
        found = [
            {"index": choice.index, "logprobs": None, "finish_reason": choice.finish}
            | (
                {"message": {"role": "assistant", "content": text, "refusal": None}}
                if chat
                else {"text": text}
            )
            for choice, text in zip(choices, (task.result() for task in tasks), strict=True)
        ]
        body = self._head(kind, chat) | {"choices": found, "usage": self._usage(choices, prompt_tokens)}
        return json_reply(body, headers=self._cost(choices))

    async def _stream(
        self, request: WriteRequest, choices: list[_Choice], prompt_tokens: int, *, chat: bool
    ) -> AsyncGenerator[bytes, None]:
        """Server-sent events, each one a JSON object; an error after the first is an event too."""
        head = self._head("chat.completion.chunk" if chat else "text_completion", chat)
        if request.include_usage:
            head |= {"usage": None}

        def event(index: int, text: str | None, finish: str | None = None) -> bytes:
            piece: dict[str, Any] = {"index": index, "logprobs": None, "finish_reason": finish}
            piece |= {"delta": {} if text is None else {"content": text}} if chat else {"text": text or ""}
            return _event(head | {"choices": [piece]})

        try:
            if chat:
                for choice in choices:
                    first = {"role": "assistant", "content": ""}
                    piece = {"index": choice.index, "delta": first, "logprobs": None, "finish_reason": None}
                    yield _event(head | {"choices": [piece]})
            async with aclosing(_merge([self._parts(choice) for choice in choices])) as merged:
                async for index, part in merged:
                    yield event(index, part, None if part is not None else choices[index].finish)
        except RequestError as error:
            yield _event(error_body(error))
            return
        except Exception:  # noqa: BLE001 - the answer has begun: all that is left to say is that it ends
            _log.exception("a text failed")
            yield _event(error_body(RequestError(500, "engine_failed", "the model failed on this text")))
            return
        usage = self._usage(choices, prompt_tokens)
        if request.include_usage:
            yield _event(head | {"choices": [], "usage": usage})
        yield _DONE

    def _head(self, kind: str, chat: bool) -> dict[str, Any]:
        identifier = ("chatcmpl-" if chat else "cmpl-") + secrets.token_hex(12)
        return {"id": identifier, "object": kind, "created": int(time.time()), "model": self.name}

    def _usage(self, choices: list[_Choice], prompt_tokens: int) -> dict[str, int]:
        answered = sum(choice.tokens for choice in choices)
        self._count_tokens(prompt_tokens, answered)
        return {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": answered,
            "total_tokens": prompt_tokens + answered,
        }

    def _cost(self, choices: list[_Choice]) -> Headers:
        busy_s = sum(choice.busy_s for choice in choices)
        headers: Headers = ((b"server-timing", f"engine;dur={busy_s * 1000:.3f}".encode()),)
        if self._usd_per_core_second is None:
            return headers
        usd = f"{busy_s * self._usd_per_core_second:.4g}".encode()
        return (*headers, (b"x-equipoise-cost-usd", usd))


def error_body(error: RequestError) -> dict[str, Any]:
    """An error of OpenAI's shape."""
    kinds = {401: "authentication_error", 429: "rate_limit_error"}
    kind = kinds.get(error.status, "server_error" if error.status >= 500 else "invalid_request_error")
    found = {"message": error.message, "type": kind, "param": error.param, "code": error.code}
    return {"error": found}


def _event(value: Any) -> bytes:
    return b"data: " + orjson.dumps(value) + b"\n\n"


async def _merge(
    sources: list[AsyncGenerator[str, None]],
) -> AsyncGenerator[tuple[int, str | None], None]:
    """The texts of all sources as they come, each with its source's number, and None where one ends."""
    queue: asyncio.Queue[tuple[int, str | None] | Exception] = asyncio.Queue()

    async def drain(index: int, source: AsyncIterator[str]) -> None:
        try:
            async for part in source:
                queue.put_nowait((index, part))
            queue.put_nowait((index, None))
        except Exception as error:  # noqa: BLE001 - handed to who reads
            queue.put_nowait(error)

    tasks = [asyncio.ensure_future(drain(index, source)) for index, source in enumerate(sources)]
    left = len(tasks)
    try:
        while left:
            received = await queue.get()
            if isinstance(received, Exception):
                raise received
            left -= received[1] is None
            yield received
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for source in sources:
            await source.aclose()
