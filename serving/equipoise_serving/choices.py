"""The texts that one request asks for, each with its tokens, its limits and its seed."""

from __future__ import annotations

from dataclasses import dataclass

from equipoise.engines.generation import GenerationParams
from equipoise.tasks.text_generation import TextGeneration
from equipoise_serving.errors import RequestError
from equipoise_serving.openai_request import WriteRequest
from equipoise_serving.text_stream import TextStream

_DEFAULT_TOKENS = 16
"""Of a completion, as OpenAI has it; a chat's default is all that fits."""


@dataclass
class Choice:
    """One answer under way."""

    index: int
    ids: list[int]
    params: GenerationParams
    text: TextStream
    tokens: int = 0
    busy_s: float = 0.0
    finish: str = "length"


@dataclass(frozen=True)
class Limits:
    """What one request may ask for."""

    max_length: int
    """Prompt and answer together, in tokens."""
    max_new_tokens: int
    """Of one answer."""
    max_choices: int
    """Answers of one request."""


def encode_prompts(request: WriteRequest, task: TextGeneration) -> list[list[int]]:
    """Tokens of each prompt, or of the one chat.

    Raises:
        RequestError: 400; the template does not take the messages, or a token is none of the vocabulary's.
    """
    if request.messages:
        try:
            return [task.chat_ids(request.messages)]
        except ValueError as error:
            raise RequestError(400, "invalid_messages", str(error), param="messages") from error
    size = task.tokenizer.get_vocab_size()
    found = []
    for prompt in request.prompts:
        if not isinstance(prompt, str) and not all(0 <= token < size for token in prompt):
            raise RequestError(
                400, "invalid_request", f"prompt has a token outside 0 to {size - 1}", param="prompt"
            )
        found.append(task.tokenizer.encode(prompt).ids if isinstance(prompt, str) else list(prompt))
    return found


def plan_choices(
    request: WriteRequest,
    prompts: list[list[int]],
    limits: Limits,
    task: TextGeneration,
    stop_ids: tuple[int, ...],
) -> list[Choice]:
    """`n` answers to each prompt, in order.

    Raises:
        RequestError: 400; more is asked for than the limits allow, or a prompt leaves nothing to go on from.
    """
    where = "messages" if request.messages else "prompt"
    if len(prompts) * request.n > limits.max_choices:
        raise RequestError(
            400, "invalid_request", f"at most {limits.max_choices} answers are written at once", param="n"
        )
    if request.max_tokens is not None and request.max_tokens > limits.max_new_tokens:
        raise RequestError(
            400, "invalid_request", f"max_tokens is at most {limits.max_new_tokens}", param="max_tokens"
        )
    found: list[Choice] = []
    for ids in prompts:
        room = limits.max_length - len(ids)
        wanted = request.max_tokens
        if wanted is None:
            most = min(limits.max_new_tokens, max(room, 1))
            wanted = most if request.messages else min(_DEFAULT_TOKENS, most)
        if not ids:
            raise RequestError(400, "invalid_request", f"{where} has no token to go on from", param=where)
        if wanted > room:
            raise RequestError(
                400,
                "context_length_exceeded",
                f"{len(ids)} prompt tokens and {wanted} more are over {limits.max_length}",
                param=where,
            )
        for number in range(request.n):
            params = GenerationParams(
                max_tokens=wanted,
                temperature=request.temperature,
                top_p=request.top_p,
                stop_ids=stop_ids,
                # The same seed gives the same answers, each of them another one.
                seed=request.seed + number if request.seed + number < 2**63 else number,
            )
            found.append(Choice(len(found), ids, params, TextStream(task.tokenizer.decode, request.stops)))
    return found
