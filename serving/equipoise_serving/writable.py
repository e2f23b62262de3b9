"""What an endpoint can do with a language model."""

from __future__ import annotations

from equipoise.bundle import BundleManifest
from equipoise.config.serving import ServingConfig
from equipoise.engines.generation import GENERATION_ENGINES, GENERATION_FILE
from equipoise.errors import BundleError, ConfigError


def is_language_model(manifest: BundleManifest) -> bool:
    """Whether an endpoint writes with it, rather than predicts."""
    return manifest.task.get("name") == "text_generation"


def check_writes(manifest: BundleManifest, serving: ServingConfig, where: str) -> None:
    """Refuse a language model that holds no keys and values, or that is to be scaled.

    Raises:
        BundleError: the bundle's engine scores whole texts alone.
        ConfigError: the replicas are to follow the traffic by a load curve, which is of scoring.
    """
    if not is_language_model(manifest):
        return
    kept = manifest.engine == "torch" or f"model/{GENERATION_FILE}" in manifest.files
    if manifest.engine not in GENERATION_ENGINES or not kept:
        raise BundleError(
            "the exported model scores texts and cannot write them: it keeps no keys and values",
            where=where,
            value=manifest.engine,
            remedy="search with search.engines: [torch, openvino] and serve that bundle",
        )
    if serving.max_replicas is not None:
        raise ConfigError(
            "replicas that write are not scaled: a load curve is measured by scoring whole texts",
            where="serving.max_replicas",
            value=serving.max_replicas,
            remedy="leave it out, and give serving.replicas",
        )
