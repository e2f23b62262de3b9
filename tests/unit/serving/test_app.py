"""What a Serve config file may say; the application itself runs in the integration tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from equipoise.errors import BundleError, ConfigError
from equipoise_serving.app import build


def test_a_wrong_key_is_named_with_its_path() -> None:
    with pytest.raises(ConfigError) as caught:
        build({"serving": {"replica": 2}})
    assert str(caught.value) == "args: serving.replica: unknown key (got 2); did you mean 'replicas'?"


def test_a_location_without_a_bundle_is_refused_before_any_replica_starts(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="neither a bundle nor a run folder"):
        build({"bundle": str(tmp_path)})
