from __future__ import annotations

import json
import pickletools
from pathlib import Path

import pytest

from equipoise import __version__
from equipoise.bundle import Bundle, locate_bundle, open_bundle, write_bundle
from equipoise.engines import Predictor, open_engine
from equipoise.errors import BundleError, StorageError
from equipoise.tasks.text_classification import TextClassification


@pytest.fixture
def bundle(tmp_path: Path, tiny_task: TextClassification, tiny_classifier: Path) -> Bundle:
    return write(tmp_path / "bundle", tiny_task, tiny_classifier)


def write(target: Path, task: TextClassification, model_folder: Path, name: str = "tiny") -> Bundle:
    return write_bundle(
        target,
        name=name,
        task=task,
        engine="torch",
        precision="fp32",
        model_folder=model_folder,
        candidate={"recipe_hash": "abc"},
    )


def fault(folder: Path) -> str:
    with pytest.raises(BundleError) as caught:
        open_bundle(folder)
    message = str(caught.value)
    assert message.startswith(str(folder))
    assert "\n" not in message
    return message


def test_a_bundle_says_what_it_is_and_answers_as_its_model_does(
    bundle: Bundle, tiny_task: TextClassification, tiny_classifier: Path
) -> None:
    opened = open_bundle(bundle.folder)
    manifest = opened.manifest
    assert (manifest.name, manifest.engine, manifest.precision) == ("tiny", "torch", "fp32")
    assert manifest.equipoise == __version__
    assert manifest.output_schema["label"] == ["billing", "delivery", "travel"]
    assert manifest.candidate == {"recipe_hash": "abc"}
    texts = ["where is my parcel", "a refund please"]
    served = Predictor(opened.load_task(), open_engine("torch", opened.model_folder, "fp32"))
    source = Predictor(tiny_task, open_engine("torch", tiny_classifier, "fp32"))
    assert served.predict(texts) == source.predict(texts)


def test_every_file_has_its_checksum_and_none_is_a_pickle(bundle: Bundle) -> None:
    files = {str(file.relative_to(bundle.folder)) for file in bundle.folder.rglob("*") if file.is_file()}
    assert files == {"bundle.json", *bundle.manifest.files}
    assert "model/model.safetensors" in files
    for name in files:
        assert Path(name).suffix in {".json", ".safetensors"}, name
        with pytest.raises((ValueError, IndexError, UnicodeDecodeError)):
            list(pickletools.genops((bundle.folder / name).read_bytes()))


@pytest.mark.parametrize("name", ["model/model.safetensors", "model/config.json", "tokenizer.json"])
def test_a_changed_byte_is_found(bundle: Bundle, name: str) -> None:
    file = bundle.folder / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    assert f"{name} was changed after it was written" in fault(bundle.folder)


def test_a_missing_file_is_found(bundle: Bundle) -> None:
    (bundle.folder / "tokenizer.json").unlink()
    assert "tokenizer.json is missing; write or fetch the bundle again" in fault(bundle.folder)


def test_an_added_file_is_found(bundle: Bundle) -> None:
    (bundle.folder / "model" / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    assert "model/pytorch_model.bin does not belong to it" in fault(bundle.folder)


def test_a_shortened_manifest_is_found(bundle: Bundle) -> None:
    file = bundle.folder / "bundle.json"
    content = file.read_bytes()
    for size in (0, 1, len(content) // 2, len(content) - 2):
        file.write_bytes(content[:size])
        assert "bundle.json is damaged" in fault(bundle.folder)


def test_a_manifest_with_a_key_missing_or_added_is_found(bundle: Bundle) -> None:
    file = bundle.folder / "bundle.json"
    manifest = json.loads(file.read_bytes())
    file.write_text(json.dumps({**manifest, "extra": 1}))
    assert "bundle.json is damaged at extra" in fault(bundle.folder)
    del manifest["engine"]
    file.write_text(json.dumps(manifest))
    assert "bundle.json is damaged at engine" in fault(bundle.folder)


def test_a_newer_format_is_refused_as_such(bundle: Bundle) -> None:
    file = bundle.folder / "bundle.json"
    file.write_text(json.dumps({**json.loads(file.read_bytes()), "format": 2, "new_key": 1}))
    assert "is of another bundle format (got 2); use a matching Equipoise" in fault(bundle.folder)


def test_a_folder_that_is_no_bundle(tmp_path: Path) -> None:
    assert "is no bundle: it has no bundle.json" in fault(tmp_path)
    assert "is no bundle" in fault(tmp_path / "absent")


def test_a_failed_write_keeps_the_old_bundle(
    bundle: Bundle, tiny_task: TextClassification, tiny_classifier: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: TextClassification, folder: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(TextClassification, "save", fail)
    with pytest.raises(StorageError, match="the disk is full"):
        write(bundle.folder, tiny_task, tiny_classifier, name="second")
    assert open_bundle(bundle.folder).manifest.name == "tiny"


def test_a_bundle_is_replaced_whole(
    bundle: Bundle, tiny_task: TextClassification, tiny_classifier: Path
) -> None:
    assert write(bundle.folder, tiny_task, tiny_classifier, name="second").manifest.name == "second"
    assert [file.name for file in bundle.folder.parent.iterdir()] == ["bundle"]


def test_a_run_folder_leads_to_its_bundle(bundle: Bundle, tmp_path: Path) -> None:
    assert locate_bundle(bundle.folder) == bundle.folder
    assert locate_bundle(bundle.folder.parent) == bundle.folder
    with pytest.raises(BundleError, match="neither a bundle nor a run folder"):
        locate_bundle(tmp_path / "other")
