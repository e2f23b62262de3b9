"""Where a pretrained model comes from: a folder, a sample package, or the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path

from equipoise.data import SAMPLE_SCHEME, sample_model
from equipoise.errors import ModelError, ServiceError

HUB_SCHEME = "hf://"
_NEEDED = ("config.json", "model.safetensors", "tokenizer.json")
_TIMEOUT_S = 20.0


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
    # The library that huggingface_hub speaks through; not all of its errors are OSError.
    from httpx2 import HTTPError
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError

    name = source.removeprefix(HUB_SCHEME)
    reachable = True
    try:
        # One question with a time limit: the download would wait for minutes where nobody answers.
        HfApi().model_info(name, timeout=_TIMEOUT_S)
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise ModelError(
            "the hub has no such model, or keeps it from you",
            where="model.teacher",
            value=source,
            remedy="check the name, or log in with `hf auth login`",
        ) from error
    except (HTTPError, OSError):
        reachable = False
    try:
        found = snapshot_download(name, allow_patterns=list(_NEEDED), local_files_only=not reachable)
        return Path(found)
    except (HTTPError, OSError) as error:
        raise ServiceError(
            "the model hub cannot be reached, and the model is not in the local cache",
            where="model.teacher",
            value=source,
            remedy="connect to a network, or give a local folder or sample://all-minilm-l6-v2",
        ) from error
