"""Bundles that lie in a bucket or on a shared volume, brought to a node's own disk once.

A bundle is named by its digest on the disk, so two of one location are told apart, the second
replica of a node finds what the first one fetched, and nothing half-fetched is ever opened.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from filelock import FileLock
from pydantic import ValidationError

from equipoise import storage
from equipoise.bundle import MANIFEST, BundleManifest, open_bundle
from equipoise.errors import BundleError, StorageError

LOCK_TIMEOUT_S = 600
"""Longest wait for another replica of this node that is fetching the same bundle."""


def find_bundle(location: str) -> tuple[str, BundleManifest]:
    """Where the bundle of a bundle or run folder lies, and what it says it is; no file is verified.

    Args:
        location: a local path or any pyarrow URI, such as `s3://bucket/runs/demo`.

    Raises:
        BundleError: there is none, or its `bundle.json` is damaged.
        StorageError: the store does not answer.
    """
    root = location.rstrip("/")
    for folder in (root, f"{root}/bundle"):
        try:
            content = storage.read_bytes(f"{folder}/{MANIFEST}")
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise StorageError(f"the bundle cannot be read: {error}", where=folder) from error
        try:
            return folder, BundleManifest.model_validate_json(content)
        except ValidationError as error:
            raise BundleError("bundle.json is damaged", where=folder) from error
    raise BundleError(
        "is neither a bundle nor a run folder with one", where=root, remedy="finish a run, or name its folder"
    )


def fetch_bundle(location: str, cache: Path | None = None) -> Path:
    """The local folder of a bundle: its own where it is a path, a copy on this disk where it is a URI.

    Args:
        location: folder of a bundle, as `find_bundle` gives it.
        cache: where copies are kept; the temporary folder of this machine by default.

    Raises:
        BundleError: there is none, or what arrived is not what its checksums say.
        StorageError: the store does not answer, or this disk is full.
    """
    if not storage.is_uri(location):
        return Path(location)
    folder, manifest = find_bundle(location)
    kept = cache or Path(tempfile.gettempdir()) / "equipoise-bundles"
    kept.mkdir(parents=True, exist_ok=True)
    target = kept / manifest.compute_digest()
    with FileLock(f"{target}.lock", timeout=LOCK_TIMEOUT_S):
        if not target.is_dir():
            storage.write_folder(target, lambda staged: _download(folder, manifest, staged))
    return target


def _download(folder: str, manifest: BundleManifest, staged: Path) -> None:
    for name in [MANIFEST, *manifest.files]:
        target = staged / name
        if not target.resolve().is_relative_to(staged.resolve()):
            raise BundleError("bundle.json names a file outside of it", where=folder, value=name)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            storage.download(f"{folder}/{name}", target)
        except FileNotFoundError:
            raise BundleError(f"{name} is missing", where=folder, remedy="write the bundle again") from None
        except OSError as error:
            raise StorageError(f"{name} cannot be fetched: {error}", where=folder) from error
    open_bundle(staged)
