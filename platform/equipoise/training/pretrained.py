"""Where the teacher's first model comes from: a folder, a sample package, a hub, or fresh weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from equipoise.config.model import ModelConfig
from equipoise.data import SAMPLE_SCHEME, sample_model
from equipoise.errors import ModelError, ServiceError
from equipoise.training.efficientnet import convert_efficientnet
from equipoise.training.gguf import convert_gguf
from equipoise.training.new_model import create_model
from equipoise.training.weight_files import INDEX_FILE, WEIGHTS_FILE, shard_names, weight_files

HUB_SCHEME = "hf://"
NEW_SCHEME = "new://"
_FETCHED = (
    "config.json",
    WEIGHTS_FILE,
    INDEX_FILE,
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "preprocessor_config.json",
)
_TIMEOUT_S = 20.0


def resolve_pretrained(settings: ModelConfig, files: Sequence[str]) -> Path:
    """A local folder that holds the model the teacher starts from.

    Args:
        settings: `teacher` is a folder, a GGUF file, `sample://NAME`, `hf://ORG/NAME` (fetched once, then
            cached), or `new://TYPE`: a model of that type of transformers with fresh weights.
        files: what the folder must hold; shards and their index stand for `model.safetensors`.

    Raises:
        ModelError: there is no such model, or it lacks one of the files.
        ServiceError: the hub cannot be reached.
    """
    source = settings.teacher
    if source.startswith(NEW_SCHEME):
        folder = create_model(source.removeprefix(NEW_SCHEME), settings.architecture)
    elif source.startswith(SAMPLE_SCHEME):
        folder = sample_model(source.removeprefix(SAMPLE_SCHEME))
        if folder.suffix == ".pth":
            folder = convert_efficientnet(folder)
    elif source.startswith(HUB_SCHEME):
        folder = _download(source)
    else:
        folder = Path(source).expanduser()
        if not folder.is_dir() and not _is_gguf(folder):
            raise ModelError(
                "no such model folder",
                where="model.teacher",
                value=source,
                remedy="give a folder, a .gguf file, hf://ORG/NAME or sample://all-minilm-l6-v2",
            )
    if _is_gguf(folder):
        folder = convert_gguf(folder)
    for name in files:
        if name == WEIGHTS_FILE:
            weight_files(folder)
        elif not (folder / name).is_file():
            raise ModelError(
                f"has no {name}",
                where="model.teacher",
                value=source,
                remedy="weights must be safetensors, with a fast tokenizer",
            )
    # Training workers run in folders of their own, where a relative path leads elsewhere.
    return folder.absolute()


def _is_gguf(path: Path) -> bool:
    return path.suffix == ".gguf" and path.is_file()


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
        found = Path(snapshot_download(name, allow_patterns=list(_FETCHED), local_files_only=not reachable))
        if reachable and (found / INDEX_FILE).is_file() and not (found / WEIGHTS_FILE).is_file():
            # Of the same commit, which is the folder's name: a branch may move in between.
            snapshot_download(name, revision=found.name, allow_patterns=list(shard_names(found / INDEX_FILE)))
        return found
    except (HTTPError, OSError) as error:
        raise ServiceError(
            "the model hub cannot be reached, and the model is not in the local cache",
            where="model.teacher",
            value=source,
            remedy="connect to a network, or give a local folder or sample://all-minilm-l6-v2",
        ) from error
