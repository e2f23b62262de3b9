"""Which bundles of language models an endpoint can write with."""

from __future__ import annotations

from equipoise.bundle import Bundle
from equipoise.errors import BundleError


def check_writes(bundle: Bundle) -> None:
    """Refuse a language model whose engine holds no keys and values.

    Raises:
        BundleError: the bundle's engine scores whole texts alone.
    """
    manifest = bundle.manifest
    if manifest.task.get("name") == "text_generation" and manifest.engine != "torch":
        raise BundleError(
            "the exported model scores texts and cannot write them: it keeps no keys and values",
            where=str(bundle.folder),
            value=manifest.engine,
            remedy="search with search.engines: [torch] and serve that bundle",
        )
