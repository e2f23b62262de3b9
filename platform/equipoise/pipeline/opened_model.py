"""A model to evaluate or predict with, wherever it lies: a bundle, a run, or a run's teacher."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from equipoise import storage
from equipoise.bundle import MANIFEST, locate_bundle, open_bundle
from equipoise.data import Layout
from equipoise.engines import Predictor, open_engine
from equipoise.errors import ModelError
from equipoise.tasks import find_task

_TRAINED = "trained.json"


@dataclass(frozen=True)
class ModelSource:
    """What it takes to open a model in any process of this machine.

    `figures` are those that were measured on validation, None where there are none on record.
    """

    location: str
    name: str
    task: dict[str, Any]
    task_folder: str
    engine: str
    precision: str
    model_folder: str
    temperature: float
    figures: dict[str, Any] | None
    digest: str
    """Names the model's content."""

    @property
    def layout(self) -> Layout:
        """What a row of its family is."""
        return find_task(self.task["name"]).layout

    def open(self, threads: int) -> Predictor:
        """Load the model into its engine."""
        description = {**self.task, "temperature": self.temperature}
        task = find_task(self.task["name"]).load(Path(self.task_folder), description)
        return Predictor(task, open_engine(self.engine, Path(self.model_folder), self.precision, threads))


def find_model(location: str | Path) -> ModelSource:
    """The model of a bundle, of a run folder (its bundle), or of a folder that a training wrote.

    Raises:
        ModelError: there is none of these.
        BundleError: the bundle is damaged.
    """
    folder = Path(location)
    if (folder / _TRAINED).is_file():
        trained = storage.read_json(str(folder / _TRAINED))
        home = folder if "task" in trained else folder.parent.parent / "teacher"
        task = storage.read_json(str(home / _TRAINED))["task"]
        digest = storage.sha256_file(folder / "model.safetensors")
        return ModelSource(
            str(folder), folder.name, task, str(home), "torch", "fp32", str(folder), 1.0, None, digest
        )
    if not folder.is_dir() or not ((folder / MANIFEST).is_file() or (folder / "bundle").is_dir()):
        raise ModelError(
            "holds neither a bundle nor a trained model",
            where="MODEL",
            value=str(location),
            remedy="give a bundle, a run folder, RUN/teacher or RUN/students/NAME",
        )
    bundle = open_bundle(locate_bundle(folder))
    manifest = bundle.manifest
    return ModelSource(
        str(bundle.folder),
        manifest.name,
        manifest.task,
        str(bundle.folder),
        manifest.engine,
        manifest.precision,
        str(bundle.model_folder),
        float(manifest.task.get("temperature", 1.0)),
        manifest.candidate.get("quality"),
        manifest.digest,
    )
