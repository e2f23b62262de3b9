"""Causal language models: what follows a prompt, or plain text (Llama and GPT families)."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from equipoise.config.model import ModelConfig
from equipoise.data import Layout
from equipoise.errors import BundleError
from equipoise.runs import TOKEN_LIKELIHOOD
from equipoise.tasks.answers import IGNORED, Answers
from equipoise.tasks.chat import CHAT_TEMPLATE_FILE, read_chat_template, read_start_token, render_chat
from equipoise.tasks.pieces import TOKENIZER_FILE, longest_input
from equipoise.tasks.task import Arrays

NEXT_IDS = "next_ids"
"""Array beside the model's inputs: the token that follows each one, IGNORED where it is not scored."""

Prompted = tuple[str, str] | str
"""A prompt and what follows it; a text alone."""

_LEAST_SHARE = 1e-30


class TextGeneration:
    """Each token is scored by the likelihood that the model gave it after those before it.

    Of a text alone, every token but the first is scored; of a prompt and what follows it, what follows
    alone, the end-of-text token included. The two parts are encoded apart, as they are when a model
    generates. Where they are longer than `max_length` together, each gets at least half of it: the
    prompt loses its beginning, what follows its end.

    Args:
        tokenizer: a fast tokenizer; its own padding and truncation are not used.
        max_length: longest input in tokens.
        end_id: the token that ends a text, or None.
        chat_template: Jinja template of conversations, or None.
        start_token: what a template begins a text with.
    """

    name: ClassVar[str] = "text_generation"
    layout: ClassVar[Layout] = "prompt"
    metric_name: ClassVar[str] = TOKEN_LIKELIHOOD
    model_class: ClassVar[str] = "AutoModelForCausalLM"
    files: ClassVar[tuple[str, ...]] = ("config.json", "model.safetensors", TOKENIZER_FILE)
    ragged: ClassVar[bool] = True

    def __init__(
        self,
        tokenizer: Tokenizer,
        max_length: int,
        end_id: int | None = None,
        chat_template: str | None = None,
        start_token: str = "",
    ) -> None:
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.end_id = end_id
        self.chat_template = chat_template
        self.start_token = start_token
        self.labels: tuple[str, ...] = ()
        self.temperature = 1.0
        # Padding stands at the right of every token that is scored, where a causal model never looks,
        # so it takes no attention mask.
        self.inputs: tuple[str, ...] = ("input_ids",)
        tokenizer.no_padding()
        tokenizer.no_truncation()

    @classmethod
    def create(cls, folder: Path, labels: Sequence[str], settings: ModelConfig) -> TextGeneration:
        """From a transformers folder with tokenizer.json and config.json."""
        del labels
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        end = config.get("eos_token_id")
        limit = longest_input(config, settings.max_length)
        tokenizer = Tokenizer.from_file(str(folder / TOKENIZER_FILE))
        end_id = end[0] if isinstance(end, list) else end
        return cls(tokenizer, limit, end_id, read_chat_template(folder), read_start_token(folder))

    @classmethod
    def load(cls, folder: Path, description: dict[str, Any]) -> TextGeneration:
        try:
            tokenizer = Tokenizer.from_file(str(folder / TOKENIZER_FILE))
            start_token = description.get("start_token", "")
            template = read_chat_template(folder)
            return cls(tokenizer, description["max_length"], description["end_id"], template, start_token)
        except KeyError as error:
            raise BundleError(f"task entry lacks {error}", where=str(folder)) from error

    def describe(self) -> dict[str, Any]:
        found = {"name": self.name, "max_length": self.max_length, "end_id": self.end_id}
        return found | ({"start_token": self.start_token} if self.start_token else {})

    def save(self, folder: Path) -> None:
        self.tokenizer.save(str(folder / TOKENIZER_FILE))
        if self.chat_template is not None:
            (folder / CHAT_TEMPLATE_FILE).write_text(self.chat_template, encoding="utf-8")

    def examples(self) -> list[Prompted]:
        return [
            ("", "A short text."),
            ("A prompt that is longer than the first one,", " and what follows it."),
        ]

    def from_text(self, text: str) -> Prompted:
        """A text alone: a client that has a prompt and what follows it sends both as one."""
        return text

    def to_text(self, value: Prompted) -> str:
        """The prompt and what follows it as one text."""
        return value if isinstance(value, str) else "".join(value)

    def encode(self, inputs: Sequence[Prompted]) -> Arrays:
        """To `input_ids` and `next_ids`, int64 of shape (batch, longest), padded at the right."""
        rows = self._encode(inputs)
        shape = len(rows), max((len(ids) for ids, _ in rows), default=0)
        ids = np.full(shape, self.end_id or 0, dtype=np.int64)
        following = np.full(shape, IGNORED, dtype=np.int64)
        for row, (tokens, start) in enumerate(rows):
            ids[row, : len(tokens)] = tokens
            following[row, start - 1 : len(tokens) - 1] = tokens[start:]
        return {"input_ids": ids, NEXT_IDS: following}

    def lengths(self, inputs: Sequence[Prompted]) -> NDArray[np.int64]:
        """Tokens of each input, prompt and all; shape (batch,)."""
        return np.array([len(ids) for ids, _ in self._encode(inputs)], dtype=np.int64)

    def targets(self, arrays: Arrays, labels: Sequence[Any]) -> NDArray[np.int64]:
        """The token that follows each one, IGNORED in the prompt and in the padding; (batch, longest)."""
        del labels
        return arrays[NEXT_IDS]

    def read(self, outputs: Arrays, arrays: Arrays) -> Answers:
        """One place a scored token, from logits of shape (batch, longest, vocabulary).

        A row's distributions are let go of before the next row's are looked at.
        """
        return _keep(outputs, arrays, 3, _token_and_rivals)

    def read_top(self, outputs: Arrays, arrays: Arrays, count: int) -> Answers:
        """The `count` likeliest tokens at each place: what a student learns from its teacher."""
        return _keep(outputs, arrays, count, lambda logits, _: _best(logits, count))

    def decode(self, outputs: Arrays, arrays: Arrays, inputs: Sequence[Prompted]) -> list[dict[str, Any]]:
        """`{"tokens", "log_likelihood", "perplexity"}` of each input; perplexity is None without tokens."""
        answers = self.read(outputs, arrays)
        found = []
        for row in range(len(inputs)):
            scores = answers.logits[answers.row_of == row, 0].astype(np.float64)
            found.append(
                {
                    "tokens": len(scores),
                    "log_likelihood": float(scores.sum()),
                    "perplexity": float(np.exp(-scores.mean())) if len(scores) else None,
                }
            )
        return found

    def tally(self, answers: Answers, truth: NDArray[np.int64], rows: int) -> NDArray[np.float64]:
        """(log-likelihood of what is there, tokens) of each row."""
        del truth
        scores = np.bincount(answers.row_of, answers.logits[:, 0], minlength=rows)
        return np.stack([scores, np.bincount(answers.row_of, minlength=rows)], axis=1).astype(np.float64)

    def metric(self, sums: NDArray[np.float64]) -> NDArray[np.float64]:
        """Geometric mean of the tokens' likelihoods: 1 over the perplexity."""
        mean = np.divide(
            sums[..., 0], sums[..., 1], out=np.full(sums.shape[:-1], -np.inf), where=sums[..., 1] > 0
        )
        result: NDArray[np.float64] = np.exp(mean)
        return result

    def prompt_ids(self, prompt: str, max_tokens: int) -> list[int]:
        """A prompt's last tokens that leave room for `max_tokens` more."""
        ids: list[int] = self.tokenizer.encode(prompt).ids
        return ids[-max(1, self.max_length - max_tokens) :]

    def chat_ids(self, messages: Sequence[dict[str, str]]) -> list[int]:
        """A conversation's tokens, up to where the answer begins.

        Raises:
            ValueError: the model's template does not take these messages.
        """
        end = "" if self.end_id is None else self.tokenizer.id_to_token(self.end_id)
        text = render_chat(messages, self.chat_template, self.start_token, end or "")
        # A template writes the special tokens itself.
        return list(self.tokenizer.encode(text, add_special_tokens=self.chat_template is None).ids)

    def text_of(self, ids: Sequence[int]) -> str:
        """The text that tokens stand for, without the one that ends it."""
        text: str = self.tokenizer.decode([token for token in ids if token != self.end_id])
        return text

    def _encode(self, inputs: Sequence[Prompted]) -> list[tuple[list[int], int]]:
        """Ids of each input, and the number of the first that is scored."""
        pairs = [("", given) if isinstance(given, str) else given for given in inputs]
        encodings = self.tokenizer.encode_batch_fast([part for pair in pairs for part in pair])
        return [
            self._join(encodings[2 * row].ids if prompt else [], encodings[2 * row + 1].ids)
            for row, (prompt, _) in enumerate(pairs)
        ]

    def _join(self, prompt: list[int], text: list[int]) -> tuple[list[int], int]:
        if not prompt:
            return text[: self.max_length] or [self.end_id or 0], 1
        if self.end_id is not None:
            text = [*text, self.end_id]
        room = max(self.max_length // 2, self.max_length - len(prompt))
        text = text[:room]
        prompt = prompt[-(self.max_length - len(text)) :]
        return prompt + text, len(prompt)


def _keep(
    outputs: Arrays,
    arrays: Arrays,
    count: int,
    choose: Callable[[NDArray[np.float32], NDArray[np.int64]], NDArray[np.int64]],
) -> Answers:
    """The log-likelihoods of `count` tokens at each scored place, and of all the rest together.

    Args:
        choose: of a row's logits (places, vocabulary) and its scored tokens (places,), the tokens to keep,
            (places, count).
    """
    kept = [np.empty((0, count + 1), np.float32)]
    classes = [np.empty((0, count), np.int32)]
    scored = arrays[NEXT_IDS] != IGNORED
    for row in np.flatnonzero(scored.any(axis=1)):
        places = np.flatnonzero(scored[row])
        logits = np.asarray(outputs["logits"][row, places], dtype=np.float32)
        tokens = choose(logits, arrays[NEXT_IDS][row, places])
        kept.append(_log_shares(logits, tokens))
        classes.append(tokens.astype(np.int32))
    rows, _ = np.nonzero(scored)
    return Answers(np.concatenate(kept), rows.astype(np.int64), np.concatenate(classes))


def _token_and_rivals(logits: NDArray[np.float32], tokens: NDArray[np.int64]) -> NDArray[np.int64]:
    """The token that is there, the best other one and the second best."""
    others = logits.copy()
    np.put_along_axis(others, tokens[:, None], -np.inf, axis=1)
    return np.concatenate([tokens[:, None], _best(others, 2)], axis=1)


def _best(logits: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    """The likeliest tokens at each place, the best first; shape (places, count)."""
    found = np.argpartition(logits, -count, axis=1)[:, -count:]
    order = np.argsort(-np.take_along_axis(logits, found, axis=1), axis=1, kind="stable")
    return np.take_along_axis(found, order, axis=1)


def _log_shares(logits: NDArray[np.float32], classes: NDArray[np.int64]) -> NDArray[np.float32]:
    """Log-likelihoods of some classes at each place, and of all the others together as the last column."""
    most = logits.max(axis=1, keepdims=True)
    shares = np.exp(logits - most)
    total = shares.sum(axis=1, keepdims=True, dtype=np.float64)
    named = np.take_along_axis(logits, classes, axis=1) - most - np.log(total)
    np.put_along_axis(shares, classes, 0.0, axis=1)
    rest = shares.sum(axis=1, keepdims=True, dtype=np.float64) / total
    return np.concatenate([named, np.log(np.maximum(rest, _LEAST_SHARE))], axis=1).astype(np.float32)
