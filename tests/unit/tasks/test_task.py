from __future__ import annotations

from pathlib import Path

import pytest

from equipoise.errors import ConfigError
from equipoise.tasks import find_task, register, task
from equipoise.tasks.text_classification import TextClassification


@pytest.fixture(autouse=True)
def own_register(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task, "_FAMILIES", dict(task._FAMILIES))


class Shouting(TextClassification):
    name = "shouting"


def test_a_known_family_is_found() -> None:
    assert find_task("text_classification") is TextClassification


def test_an_unknown_family_lists_those_there_are() -> None:
    with pytest.raises(
        ConfigError, match=r"no such task family \(got 'speech'\); one of image_classification, "
    ):
        find_task("speech")


def test_a_family_can_be_registered_from_outside() -> None:
    loaded = []

    def load() -> type[Shouting]:
        loaded.append(True)
        return Shouting

    register("shouting", load)
    assert not loaded
    assert find_task("shouting") is Shouting


def test_an_installed_package_adds_a_family_by_entry_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shouting_family.py").write_text(
        "from equipoise.tasks.text_classification import TextClassification\n"
        "class Shouting(TextClassification):\n    name = 'entry_shouting'\n"
    )
    info = tmp_path / "shouting_family-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: shouting-family\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[equipoise.tasks]\nentry_shouting = shouting_family:Shouting\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert find_task("entry_shouting").name == "entry_shouting"
