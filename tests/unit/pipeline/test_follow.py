"""A bundle that takes another's place on the disk."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from equipoise.bundle import MANIFEST, Bundle, open_bundle, write_bundle
from equipoise.errors import ServiceError
from equipoise.pipeline import endpoint
from equipoise.tasks.text_classification import TextClassification


class Enough(Exception):  # noqa: N818 - ends the wait
    pass


def put_bundle(folder: Path, task: TextClassification, content: str) -> Bundle:
    model = folder.parent / f"model-{content}"
    model.mkdir(exist_ok=True)
    (model / "model.xml").write_text(content)
    return write_bundle(
        folder, name="tiny", task=task, engine="openvino", precision="fp32", model_folder=model, candidate={}
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "bundle"


def follow(
    first: Bundle, steps: list[object], monkeypatch: pytest.MonkeyPatch
) -> tuple[list[str], list[str]]:
    """What was served and told, while the steps happen one a look."""
    served: list[str] = []
    told: list[str] = []
    left = iter(steps)

    def sleep(seconds: float) -> None:
        step = next(left, None)
        if step is None:
            raise Enough
        step()  # type: ignore[operator]

    def serve(bundle: Bundle) -> str:
        served.append((bundle.model_folder / "model.xml").read_text())
        if served[-1] == "unready":
            raise ServiceError("a replica does not start")
        return "http://127.0.0.1:8000"

    # The module's own name for it: what other threads sleep is none of its steps.
    monkeypatch.setattr(endpoint, "time", SimpleNamespace(sleep=sleep))
    with pytest.raises(Enough):
        endpoint._wait(first, serve, told.append)
    return served, told


def test_each_new_bundle_is_served_once(
    folder: Path, tiny_task: TextClassification, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = put_bundle(folder, tiny_task, "one")
    nothing = lambda: None  # noqa: E731
    steps = [nothing, lambda: put_bundle(folder, tiny_task, "two"), nothing, nothing]
    served, told = follow(first, steps, monkeypatch)
    assert served == ["two"]
    assert open_bundle(folder).manifest.digest[:12] in told[0]


def test_one_that_cannot_be_served_is_told_once_and_the_next_is_tried(
    folder: Path, tiny_task: TextClassification, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = put_bundle(folder, tiny_task, "one")
    nothing = lambda: None  # noqa: E731

    def tamper() -> None:
        put_bundle(folder, tiny_task, "tampered")
        (folder / "model" / "model.xml").write_text("something else")

    steps = [tamper, nothing, lambda: put_bundle(folder, tiny_task, "unready"), nothing,
             lambda: put_bundle(folder, tiny_task, "good"), nothing]  # fmt: skip
    served, told = follow(first, steps, monkeypatch)
    assert served == ["unready", "good"]
    assert [line.partition(":")[0] for line in told[:2]] == ["the new bundle is not served"] * 2
    assert "model.xml was changed" in told[0]
    assert told[2].startswith("now serving openvino fp32")


def test_a_folder_that_is_gone_for_a_moment_changes_nothing(
    folder: Path, tiny_task: TextClassification, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = put_bundle(folder, tiny_task, "one")
    content = (folder / MANIFEST).read_text()
    steps = [
        lambda: (folder / MANIFEST).unlink(),
        lambda: (folder / MANIFEST).write_text("{"),
        lambda: (folder / MANIFEST).write_text(json.dumps([])),
        lambda: (folder / MANIFEST).write_text(content),
    ]
    assert follow(first, steps, monkeypatch) == ([], [])
