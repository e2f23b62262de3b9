"""Which bundles of language models an endpoint can write with."""

from __future__ import annotations

from equipoise.bundle import Bundle
from equipoise.engines.generation import GENERATION_ENGINES, GENERATION_FILE
from equipoise.errors import BundleError


def is_language_model(bundle: Bundle) -> bool:
    """Whether an endpoint writes with it, rather than predicts."""
    return bundle.manifest.task.get("name") == "text_generation"


def check_writes(bundle: Bundle) -> None:
    """Refuse a language model whose engine holds no keys and values.

    Raises:
        BundleError: the bundle's engine scores whole texts alone.
    """
    engine = bundle.manifest.engine
    if not is_language_model(bundle):
        return
    kept = engine == "torch" or (bundle.model_folder / GENERATION_FILE).is_file()
    if engine not in GENERATION_ENGINES or not kept:
        raise BundleError(
            "the exported model scores texts and cannot write them: it keeps no keys and values",
            where=str(bundle.folder),
            value=engine,
            remedy="search with search.engines: [torch, openvino] and serve that bundle",
        )
