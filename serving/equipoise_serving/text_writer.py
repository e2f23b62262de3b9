"""OpenAI's completions and chat completions over a generation engine."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any, Protocol

from equipoise.engines.generation import GenerationParams, Token
from equipoise.tasks.text_generation import TextGeneration
from equipoise_serving.batching import overloaded
from equipoise_serving.choices import Choice, Limits, encode_prompts, plan_choices
from equipoise_serving.errors import RequestError
from equipoise_serving.http import Headers, Reply, json_reply
from equipoise_serving.merged_texts import merge_texts
from equipoise_serving.openai_answer import DONE, AnswerForm, error_body, event, usage_of
from equipoise_serving.openai_request import WriteRequest, parse_request

_log = logging.getLogger("ray.serve")


class Engine(Protocol):
    """A generation engine, and how many texts wait in it."""

    max_length: int

    @property
    def waiting(self) -> int: ...

    def generate(self, ids: Any, params: GenerationParams) -> AsyncGenerator[Token, None]: ...


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
        self._limits = Limits(engine.max_length, max_new_tokens, max_choices)
        self._max_waiting = max_waiting
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
        prompts = await asyncio.to_thread(encode_prompts, request, self._task)
        choices = plan_choices(request, prompts, self._limits, self._task, self._stop_ids)
        if self._engine.waiting + len(choices) > self._max_waiting:
            raise overloaded(1.0)
        prompt_tokens = sum(map(len, prompts))
        if request.stream:
            return self._stream(request, choices, prompt_tokens, chat=chat), len(choices)
        return await self._whole(choices, prompt_tokens, chat=chat), len(choices)

    async def _parts(self, choice: Choice) -> AsyncGenerator[str, None]:
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

    async def _write(self, choice: Choice) -> str:
        async with aclosing(self._parts(choice)) as parts:
            return "".join([part async for part in parts])

    async def _whole(self, choices: list[Choice], prompt_tokens: int, *, chat: bool) -> Reply:
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._write(choice)) for choice in choices]
        except ExceptionGroup as error:
            _log.exception("a text failed")
            raise RequestError(500, "engine_failed", "the model failed on this text") from error
        texts = [(task.result(), choice.finish) for task, choice in zip(tasks, choices, strict=True)]
        body = AnswerForm(self.name, chat=chat).whole(texts, self._count(choices, prompt_tokens))
        return json_reply(body, headers=self._cost(choices))

    async def _stream(
        self, request: WriteRequest, choices: list[Choice], prompt_tokens: int, *, chat: bool
    ) -> AsyncGenerator[bytes, None]:
        """Server-sent events, each one a JSON object; an error after the first is an event too."""
        form = AnswerForm(self.name, chat=chat, stream=True)
        if request.include_usage:
            form.expect_usage()
        try:
            if chat:
                for choice in choices:
                    yield form.first(choice.index)
            async with aclosing(merge_texts([self._parts(choice) for choice in choices])) as merged:
                async for index, part in merged:
                    yield form.piece(index, part, None if part is not None else choices[index].finish)
        except RequestError as error:
            yield event(error_body(error))
            return
        except Exception:  # noqa: BLE001 - the answer has begun: all that is left to say is that it ends
            _log.exception("a text failed")
            yield event(error_body(RequestError(500, "engine_failed", "the model failed on this text")))
            return
        usage = self._count(choices, prompt_tokens)
        if request.include_usage:
            yield form.last(usage)
        yield DONE

    def _count(self, choices: list[Choice], prompt_tokens: int) -> dict[str, Any]:
        answered = sum(choice.tokens for choice in choices)
        self._count_tokens(prompt_tokens, answered)
        return usage_of(prompt_tokens, answered)

    def _cost(self, choices: list[Choice]) -> Headers:
        busy_s = sum(choice.busy_s for choice in choices)
        headers: Headers = ((b"server-timing", f"engine;dur={busy_s * 1000:.3f}".encode()),)
        if self._usd_per_core_second is None:
            return headers
        usd = f"{busy_s * self._usd_per_core_second:.4g}".encode()
        return (*headers, (b"x-equipoise-cost-usd", usd))
