"""The safetensors files of a model folder: one, or shards with the index that names them."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from equipoise import storage
from equipoise.errors import InputError, ModelError

WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"


def weight_files(folder: Path) -> tuple[Path, ...]:
    """`model.safetensors` where it stands, as transformers prefers it; otherwise all shards by name.

    Raises:
        ModelError: there are neither, a shard is missing, or the index cannot be read.
    """
    if (folder / WEIGHTS_FILE).is_file():
        return (folder / WEIGHTS_FILE,)
    if not (folder / INDEX_FILE).is_file():
        raise ModelError(
            f"has no {WEIGHTS_FILE}",
            where="model.teacher",
            value=str(folder),
            remedy=f"weights must be safetensors: one {WEIGHTS_FILE}, or shards with {INDEX_FILE}",
        )
    names = shard_names(folder / INDEX_FILE)
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ModelError(
            f"has no {missing[0]}{more} of the {len(names)} shards that {INDEX_FILE} names",
            where="model.teacher",
            value=str(folder),
            remedy="copy or download the model again, whole",
        )
    return tuple(folder / name for name in names)


def shard_names(index: Path) -> tuple[str, ...]:
    """Names of the shards in an index, each once, sorted; file names alone.

    Raises:
        ModelError: it is no index of safetensors.
    """
    try:
        content = storage.read_json(str(index))
    except InputError as error:
        raise ModelError("is not valid JSON", where="model.teacher", value=str(index)) from error
    places = content.get("weight_map") if isinstance(content, dict) else None
    named = places.values() if isinstance(places, dict) and places else [None]
    if not all(isinstance(name, str) and _is_plain(name) for name in named):
        raise ModelError(
            "is no index of safetensors: its weight_map names no files of its folder",
            where="model.teacher",
            value=str(index),
            remedy="copy or download the model again, whole",
        )
    return tuple(sorted(set(named)))


def _is_plain(name: str) -> bool:
    return PurePosixPath(name).name == name and name.endswith(".safetensors")
