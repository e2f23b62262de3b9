"""Who may reach an endpoint, checked before anything starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from equipoise.config.serving import ServingConfig
from equipoise.errors import ConfigError
from equipoise_serving.api_keys import create_key
from equipoise_serving.endpoint import check_access


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_loopback_needs_no_key(host: str) -> None:
    config = ServingConfig(host=host)
    assert check_access(config) == config


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.7", "example.org"])
def test_any_other_host_needs_one(host: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="needs API keys"):
        check_access(ServingConfig(host=host))
    create_key(tmp_path / "keys.json", "shop")
    assert check_access(ServingConfig(host=host, api_keys=str(tmp_path / "keys.json"))).host == host


def test_a_file_that_is_missing_or_empty_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        check_access(ServingConfig(api_keys=str(tmp_path / "none.json")))
    (tmp_path / "keys.json").write_text('{"keys": []}')
    with pytest.raises(ConfigError, match="holds no key"):
        check_access(ServingConfig(api_keys=str(tmp_path / "keys.json")))


def test_replicas_get_absolute_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    create_key(Path("keys.json"), "shop")
    checked = check_access(ServingConfig(api_keys="keys.json", access_log="log"))
    assert checked.api_keys == str(tmp_path / "keys.json")
    assert checked.access_log == str(tmp_path / "log")
