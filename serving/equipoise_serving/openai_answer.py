"""Bodies and events of OpenAI's protocol, in both of its kinds."""

from __future__ import annotations

import secrets
import time
from typing import Any

import orjson

from equipoise_serving.errors import RequestError

DONE = b"data: [DONE]\n\n"
"""The last event of a stream that did not fail."""
Json = dict[str, Any]


class AnswerForm:
    """The shape of one answer: what its body or its events hold beside the texts.

    Args:
        model_name: the model's.
        chat: a chat's, or a completion's.
        stream: whether it is sent piece by piece.
    """

    def __init__(self, model_name: str, *, chat: bool, stream: bool = False) -> None:
        self._chat = chat
        kind = "text_completion" if not chat else "chat.completion.chunk" if stream else "chat.completion"
        identifier = ("chatcmpl-" if chat else "cmpl-") + secrets.token_hex(12)
        self._head: Json = {
            "id": identifier,
            "object": kind,
            "created": int(time.time()),
            "model": model_name,
        }

    def whole(self, texts: list[tuple[str, str]], usage: Json) -> Json:
        """The body of an answer, from each text and why it ended."""
        choices = [
            {"index": index, "logprobs": None, "finish_reason": finish}
            | (
                {"message": {"role": "assistant", "content": text, "refusal": None}}
                if self._chat
                else {"text": text}
            )
            for index, (text, finish) in enumerate(texts)
        ]
        return self._head | {"choices": choices, "usage": usage}

    def expect_usage(self) -> None:
        """Let the last event tell the tokens, and every other one say that it does not."""
        self._head |= {"usage": None}

    def first(self, index: int) -> bytes:
        """The event that opens a text of a chat."""
        return self._piece(index, {"delta": {"role": "assistant", "content": ""}}, None)

    def piece(self, index: int, text: str | None, finish: str | None) -> bytes:
        """The event of a part of a text; of its end, where there is none."""
        if self._chat:
            return self._piece(index, {"delta": {} if text is None else {"content": text}}, finish)
        return self._piece(index, {"text": text or ""}, finish)

    def last(self, usage: Json) -> bytes:
        """The event that tells the tokens."""
        return event(self._head | {"choices": [], "usage": usage})

    def _piece(self, index: int, content: Json, finish: str | None) -> bytes:
        piece = {"index": index, "logprobs": None, "finish_reason": finish} | content
        return event(self._head | {"choices": [piece]})


def usage_of(prompt_tokens: int, completion_tokens: int) -> Json:
    """Tokens read and written."""
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }


def error_body(error: RequestError) -> Json:
    """An error of OpenAI's shape."""
    kinds = {401: "authentication_error", 429: "rate_limit_error"}
    kind = kinds.get(error.status, "server_error" if error.status >= 500 else "invalid_request_error")
    found = {"message": error.message, "type": kind, "param": error.param, "code": error.code}
    return {"error": found}


def event(value: Json) -> bytes:
    """A server-sent event."""
    return b"data: " + orjson.dumps(value) + b"\n\n"
