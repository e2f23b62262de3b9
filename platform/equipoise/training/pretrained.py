"""Where a pretrained model comes from: a folder, a sample package, or the Hugging Face hub."""

from __future__ import annotations

import os
from pathlib import Path

from equipoise.data import SAMPLE_SCHEME, sample_model
from equipoise.errors import ModelError, ServiceError

HUB_SCHEME = "hf://"
_NEEDED = ("config.json", "model.safetensors", "tokenizer.json")
_TIMEOUT_S = "20"


def resolve_pretrained(source: str) -> Path:
    """A local folder with config.json, model.safetensors and tokenizer.json.

    Args:
        source: a folder, `sample://NAME`, or `hf://ORG/NAME` (fetched once, then cached).

    Raises:
        ModelError: there is no such model, or it lacks one of the three files.
        ServiceError: the hub cannot be reached.
    """
    if source.startswith(SAMPLE_SCHEME):
        folder = sample_model(source.removeprefix(SAMPLE_SCHEME))
    elif source.startswith(HUB_SCHEME):
        folder = _download(source)
    else:
        folder = Path(source).expanduser()
        if not folder.is_dir():
            raise ModelError(
                "no such model folder",
                where="model.teacher",
                value=source,
                remedy="give a folder, hf://ORG/NAME or sample://all-minilm-l6-v2",
            )
    for name in _NEEDED:
        if not (folder / name).is_file():
            raise ModelError(
                f"has no {name}",
                where="model.teacher",
                value=source,
                remedy="weights must be safetensors, with a fast tokenizer",
            )
    return folder


def _download(source: str) -> Path:
    os.environ.setdefault("HF_HUB_ETAG_TIMEOUT", _TIMEOUT_S)
    os.environ.setdefault("HF_HUB_DOWNLOAD_TIMEOUT", _TIMEOUT_S)
    import httpx
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    name = source.removeprefix(HUB_SCHEME)
    try:
        return Path(snapshot_download(name, allow_patterns=list(_NEEDED)))
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise ModelError("the hub has no such model", where="model.teacher", value=source) from error
    except (LocalEntryNotFoundError, HfHubHTTPError, httpx.HTTPError, OSError) as error:
        raise ServiceError(
            "the model hub cannot be reached, and the model is not in the local cache",
            where="model.teacher",
            value=source,
            remedy="connect to a network, or give a local folder or sample://all-minilm-l6-v2",
        ) from error
