"""Data sets of the Hugging Face hub, `hf://NAME[:CONFIG]/SPLIT`, by the Parquet files it makes of each."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from equipoise.errors import DataError, ServiceError

HUB_SCHEME = "hf://"
_REVISION = "refs/convert/parquet"
"""Where the hub keeps every public data set as Parquet, whatever form it was given in."""
_TIMEOUT_S = 20.0
_LOCATION = re.compile(r"hf://(?P<name>[\w.-]+(?:/[\w.-]+)?)(?::(?P<config>[\w.-]+))?/(?P<split>[\w.-]+)")


def find_hub_files(location: str) -> list[Path]:
    """Local Parquet files of one split, in order; fetched once, then cached.

    Raises:
        DataError: the location or the data set is none, or has no such configuration or split.
        ServiceError: the hub cannot be reached, and the files are not in its local cache.
    """
    from httpx2 import HTTPError
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError, RevisionNotFoundError

    parts = _LOCATION.fullmatch(location)
    if parts is None:
        raise DataError(
            "is no data set of the hub",
            where=location,
            remedy="write hf://NAME/SPLIT or hf://NAME:CONFIG/SPLIT",
        )
    name, config, split = parts["name"], parts["config"], parts["split"]
    known: list[str] | None = None
    try:
        # One question with a time limit: a download would wait for minutes where nobody answers.
        info = HfApi().dataset_info(name, revision=_REVISION, timeout=_TIMEOUT_S)
        known = [sibling.rfilename for sibling in info.siblings or []]
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise DataError(
            "the hub has no such data set, or keeps it from you",
            where=location,
            remedy="check the name, or log in with `hf auth login`",
        ) from error
    except RevisionNotFoundError as error:
        raise DataError(
            "the hub has made no Parquet files of this data set",
            where=location,
            remedy="fetch its own files and give their path",
        ) from error
    except (HTTPError, OSError):
        known = None
    pattern = f"{_choose(known, config, split, location)}/*.parquet" if known is not None else "*"
    try:
        folder = Path(
            snapshot_download(
                name,
                repo_type="dataset",
                revision=_REVISION,
                allow_patterns=[pattern],
                local_files_only=known is None,
            )
        )
    except (HTTPError, OSError) as error:
        raise ServiceError(
            "the hub cannot be reached, and the data set is not in the local cache",
            where=location,
            remedy="connect to a network, or give local files",
        ) from error
    held = [str(file.relative_to(folder)) for file in sorted(folder.rglob("*.parquet"))]
    return sorted((folder / _choose(held, config, split, location)).glob("*.parquet"))


def _choose(files: Sequence[str], config: str | None, split: str, location: str) -> str:
    """Folder of a configuration's split; the only configuration, or `default`, where none is named."""
    folders = sorted({file.rpartition("/")[0] for file in files if file.endswith(".parquet")})
    configs = sorted({folder.partition("/")[0] for folder in folders})
    if config is None:
        config = configs[0] if len(configs) == 1 else "default"
    if config not in configs:
        raise DataError(
            "has several configurations" if len(configs) > 1 else "has no such configuration",
            where=location,
            value=config,
            remedy=f"write hf://NAME:CONFIG/SPLIT with one of {', '.join(configs[:20]) or 'none'}",
        )
    splits = [folder.partition("/")[2] for folder in folders if folder.startswith(f"{config}/")]
    if split not in splits:
        raise DataError(
            "has no such split", where=location, value=split, remedy=f"one of {', '.join(splits)}"
        )
    return f"{config}/{split}"
