"""A conversation as the one text that a language model goes on from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

CHAT_TEMPLATE_FILE = "chat_template.jinja"
_CONFIG_FILE = "tokenizer_config.json"


def read_chat_template(folder: Path) -> str | None:
    """The template of a transformers folder; None where it has none."""
    if (folder / CHAT_TEMPLATE_FILE).is_file():
        return (folder / CHAT_TEMPLATE_FILE).read_text(encoding="utf-8")
    found = _tokenizer_config(folder).get("chat_template")
    return found if isinstance(found, str) else None


def read_start_token(folder: Path) -> str:
    """The token that begins a text, as a template writes it; empty where there is none."""
    found = _tokenizer_config(folder).get("bos_token")
    if isinstance(found, dict):
        found = found.get("content")
    return found if isinstance(found, str) else ""


def render_chat(
    messages: Sequence[dict[str, str]], template: str | None, start_token: str = "", end_token: str = ""
) -> str:
    """The conversation up to where the assistant's next words begin.

    Without a template each message is a line `role: content`, and the last one is `assistant:`.

    Raises:
        ValueError: the template does not take these messages.
    """
    if template is None:
        return "".join(f"{message['role']}: {message['content']}\n" for message in messages) + "assistant:"
    from jinja2 import TemplateError
    from transformers.utils.chat_template_utils import render_jinja_template

    try:
        # In a sandbox: a template may come from anywhere.
        [text], _ = render_jinja_template(
            [list(messages)],
            chat_template=template,
            add_generation_prompt=True,
            bos_token=start_token,
            eos_token=end_token,
        )
    except (TemplateError, TypeError, KeyError) as error:
        raise ValueError(f"the model's chat template does not take these messages: {error}") from error
    return str(text)


def _tokenizer_config(folder: Path) -> dict[str, object]:
    if not (folder / _CONFIG_FILE).is_file():
        return {}
    found = json.loads((folder / _CONFIG_FILE).read_text(encoding="utf-8"))
    return found if isinstance(found, dict) else {}
