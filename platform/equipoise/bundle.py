"""The deployable artefact: a folder put in place at once, checksummed, verified on load.

bundle.json     what it is: task, engine, precision, figures, cost, lineage, SHA-256 of each file
model/          safetensors + config.json, or model.onnx, or model.xml + model.bin
tokenizer.json  the preprocessor's files
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from equipoise import __version__, storage
from equipoise.errors import BundleError
from equipoise.tasks import Task, find_task

MANIFEST = "bundle.json"
FORMAT = 1


class BundleManifest(BaseModel):
    """`bundle.json`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int
    equipoise: str
    name: str
    task: dict[str, Any]
    engine: str
    precision: str
    input_schema: dict[str, Any]
    output_schema: dict[str, Any]
    candidate: dict[str, Any]
    """The chosen candidate's record: recipe, figures, cost, lineage."""
    files: dict[str, str]
    """SHA-256 of every other file, by relative path."""
    digest: str = ""
    """SHA-256 over all of the above, so that an edited label or temperature is found out."""

    def compute_digest(self) -> str:
        """What `digest` must be."""
        content = json.dumps(self.model_dump(mode="json", exclude={"digest"}), sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()


class _Header(BaseModel):
    """What every format of `bundle.json` holds; read first, as a newer one may hold other keys."""

    format: int


class Bundle:
    """A verified bundle on a local disk."""

    def __init__(self, folder: Path, manifest: BundleManifest) -> None:
        self.folder = folder
        self.manifest = manifest

    @property
    def model_folder(self) -> Path:
        """Folder that an engine opens."""
        return self.folder / "model"

    def load_task(self) -> Task:
        """The task with its preprocessor and fitted temperature."""
        name = self.manifest.task.get("name")
        if not isinstance(name, str):
            raise BundleError("bundle.json names no task", where=str(self.folder))
        return find_task(name).load(self.folder, self.manifest.task)


def write_bundle(
    target: Path,
    *,
    name: str,
    task: Task,
    engine: str,
    precision: str,
    model_folder: Path,
    candidate: dict[str, Any],
) -> Bundle:
    """Write a bundle; whatever stood at `target` stays whole until the new one is complete.

    Raises:
        StorageError: the disk is full.
    """

    def fill(folder: Path) -> None:
        shutil.copytree(model_folder, folder / "model")
        task.save(folder)
        files = {
            str(file.relative_to(folder)): storage.sha256_file(file)
            for file in sorted(folder.rglob("*"))
            if file.is_file()
        }
        manifest = BundleManifest(
            format=FORMAT,
            equipoise=__version__,
            name=name,
            task=task.describe(),
            engine=engine,
            precision=precision,
            input_schema={"inputs": "string or list of strings"},
            output_schema={"label": list(task.labels), "score": "number in 0..1"},
            candidate=candidate,
            files=files,
        )
        manifest = manifest.model_copy(update={"digest": manifest.compute_digest()})
        (folder / MANIFEST).write_text(manifest.model_dump_json(indent=1), encoding="utf-8")

    storage.write_folder(target, fill)
    return open_bundle(target)


def open_bundle(folder: str | Path) -> Bundle:
    """Read and verify a bundle: every file present, none added, each with its checksum.

    Raises:
        BundleError: it is missing, half-written, tampered with, or of a newer format.
    """
    root = Path(folder).absolute()
    file = root / MANIFEST
    if not file.is_file():
        raise BundleError("is no bundle: it has no bundle.json", where=str(root))
    try:
        content = file.read_bytes()
        found_format = _Header.model_validate_json(content).format
        if found_format != FORMAT:
            raise BundleError(
                "is of another bundle format",
                where=str(root),
                value=found_format,
                remedy="use a matching Equipoise",
            )
        manifest = BundleManifest.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        spot = ".".join(map(str, first["loc"])) or "the file"
        raise BundleError(f"bundle.json is damaged at {spot}: {first['msg']}", where=str(root)) from error
    if manifest.digest != manifest.compute_digest():
        raise BundleError(
            "bundle.json was changed after it was written: its digest differs",
            where=str(root),
            remedy="write or fetch the bundle again",
        )
    found = {str(p.relative_to(root)) for p in root.rglob("*") if p.is_file()} - {MANIFEST}
    for name in sorted(found ^ manifest.files.keys()):
        state = "is missing" if name in manifest.files else "does not belong to it"
        raise BundleError(f"{name} {state}", where=str(root), remedy="write or fetch the bundle again")
    for name, expected in manifest.files.items():
        if storage.sha256_file(root / name) != expected:
            raise BundleError(
                f"{name} was changed after it was written: its SHA-256 differs",
                where=str(root),
                remedy="write or fetch the bundle again",
            )
    return Bundle(root, manifest)


def locate_bundle(location: str | Path) -> Path:
    """The bundle folder of a bundle or of a finished run folder."""
    root = Path(location)
    if (root / MANIFEST).is_file():
        return root
    if (root / "bundle" / MANIFEST).is_file():
        return root / "bundle"
    raise BundleError(
        "is neither a bundle nor a run folder with one", where=str(root), remedy="finish a run first"
    )
