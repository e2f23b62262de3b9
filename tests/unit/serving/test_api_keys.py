"""Keys on a real disk: what is stored, rotation, and damaged files."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from equipoise.errors import ConfigError
from equipoise_serving import api_keys
from equipoise_serving.api_keys import ApiKeys, create_key, presented_key, read_keys, revoke_key


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "secrets" / "keys.json"


def test_a_key_is_stored_as_its_hash_and_only_its_owner_may_read_the_file(file: Path) -> None:
    key, stored = create_key(file, "shop")
    assert key.startswith("eqp_")
    assert len(key) > 40
    assert key not in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert read_keys(file) == [stored]
    assert ApiKeys(file).find(key.encode()) == stored
    assert ApiKeys(file).find(key[:-1].encode()) is None
    assert ApiKeys(file).find(b"") is None


def test_keys_change_without_a_restart(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old, stored = create_key(file, "old")
    held = ApiKeys(file)
    new, _ = create_key(file, "new")
    assert held.find(new.encode()) is None, "the file is looked at once a second, not with each request"
    monkeypatch.setattr(api_keys, "_RELOAD_S", 0.0)
    assert held.find(new.encode()) is not None
    revoke_key(file, stored.id)
    assert held.find(old.encode()) is None
    assert held.find(new.encode()) is not None


@pytest.mark.parametrize("content", ["{", "{}", '{"keys": [{"id": "1"}]}', '{"keys": [], "more": 1}'])
def test_a_damaged_file_is_named_and_leaves_the_last_good_keys_in_force(
    file: Path, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    key, _ = create_key(file, "shop")
    held = ApiKeys(file)
    monkeypatch.setattr(api_keys, "_RELOAD_S", 0.0)
    file.write_text(content)
    with pytest.raises(ConfigError, match="key file is damaged"):
        ApiKeys(file)
    assert held.find(key.encode()) is not None
    file.unlink()
    assert held.find(key.encode()) is not None
    with pytest.raises(ConfigError, match="cannot be read"):
        read_keys(file)


def test_the_error_of_a_damaged_file_shows_nothing_that_it_holds(file: Path) -> None:
    _, stored = create_key(file, "shop")
    held = json.loads(file.read_text())
    held["keys"][0]["created"] = 5
    file.write_text(json.dumps(held))
    with pytest.raises(ConfigError) as caught:
        read_keys(file)
    assert stored.sha256 not in str(caught.value)
    assert "keys.0.created" in str(caught.value)


def test_an_unknown_id_cannot_be_revoked(file: Path) -> None:
    create_key(file, "shop")
    with pytest.raises(ConfigError, match="no key has this id"):
        revoke_key(file, "nobody")


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(ConfigError, match="cannot be written"):
        create_key(tmp_path / "taken" / "keys.json", "shop")


@pytest.mark.parametrize(
    ("headers", "key"),
    [
        ({}, b""),
        ({b"authorization": b"Bearer k1"}, b"k1"),
        ({b"authorization": b"bearer  k1 "}, b"k1"),
        ({b"x-api-key": b" k2 "}, b"k2"),
        ({b"authorization": b"Basic k1", b"x-api-key": b"k2"}, b"k2"),
        ({b"authorization": b"k1"}, b""),
    ],
)
def test_a_key_comes_in_either_header(headers: dict[bytes, bytes], key: bytes) -> None:
    assert presented_key(headers) == key
