"""The page at `/`: try the model in a browser, without any other file or host."""

from __future__ import annotations

import html
import json
import secrets
from importlib import resources
from string import Template

from equipoise_serving.card import ModelCard
from equipoise_serving.http import Reply


def page_reply(card: ModelCard) -> Reply:
    """The page, which may load nothing and send nothing but to this endpoint."""
    writes = card.task == "text_generation"
    nonce = secrets.token_urlsafe(16)
    source = resources.files("equipoise_serving").joinpath("page.html").read_text(encoding="utf-8")
    labels = [f"{len(card.labels)} labels"] if card.labels else []
    content = Template(source).substitute(
        name=html.escape(card.name),
        facts=html.escape(" · ".join([card.task, f"{card.engine} {card.precision}", *labels])),
        action="Write" if writes else "Predict",
        writes=json.dumps(writes),
        # Inside a script element, where an end tag in a name would end it.
        model=json.dumps(card.name).replace("<", "\\u003c"),
        key_hidden="" if card.needs_key else " hidden",
        nonce=nonce,
    )
    policy = (
        f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'unsafe-inline'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return Reply(
        200,
        content.encode(),
        ((b"content-security-policy", policy.encode()), (b"x-content-type-options", b"nosniff")),
        b"text/html; charset=utf-8",
    )
