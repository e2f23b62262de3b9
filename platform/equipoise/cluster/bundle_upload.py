"""A bundle of this machine, put where every pod can read it."""

from __future__ import annotations

from equipoise import storage
from equipoise.bundle import MANIFEST, Bundle

_DIGEST = 16


def upload_bundle(bundle: Bundle, store: str, *, write: bool = True) -> str:
    """Put a verified bundle below `store`, under its name and digest; nothing where it stands already.

    `bundle.json` goes last, so that a half-written bundle is none.

    Args:
        bundle: opened, and so verified.
        store: a URI.
        write: False gives the URI only.

    Raises:
        InputError: the store cannot be opened or written to.
        StorageError: the store failed.
    """
    manifest = bundle.manifest
    target = f"{store.rstrip('/')}/{manifest.name}-{manifest.digest[:_DIGEST]}"
    if not write or storage.exists(f"{target}/{MANIFEST}"):
        return target
    for name in [*sorted(manifest.files), MANIFEST]:
        storage.put_bytes(f"{target}/{name}", (bundle.folder / name).read_bytes())
    return target
