"""What `equipoise estimate` told of a config, kept on this machine until a run is held against it."""

from __future__ import annotations

import hashlib
import json
import logging

from pydantic import ValidationError

from equipoise import hardware, storage
from equipoise.config import RunConfig
from equipoise.costs.estimate import RunEstimate
from equipoise.errors import EquipoiseError

_log = logging.getLogger(__name__)


def keep_estimate(config: RunConfig, found: RunEstimate) -> None:
    """Keep what was told of a config, for a run of it on this hardware to be held against.

    Never fails: what cannot be kept is logged.
    """
    try:
        storage.put_json(_kept(config, found.fingerprint), found.model_dump(mode="json"))
    except EquipoiseError as error:
        _log.warning("the estimate is not kept: %s", error)


def told_estimate(config: RunConfig) -> RunEstimate | None:
    """What was last told of this very config on this machine's hardware; None where nothing was."""
    location = _kept(config, hardware.fingerprint(hardware.describe_hardware()))
    try:
        return RunEstimate.model_validate(storage.read_json(location)) if storage.exists(location) else None
    except (EquipoiseError, ValidationError):
        return None


def _kept(config: RunConfig, fingerprint: str) -> str:
    content = json.dumps(config.model_dump(mode="json", exclude={"output"}), sort_keys=True)
    name = hashlib.sha256(content.encode()).hexdigest()[:12]
    return str(storage.user_cache("estimates") / fingerprint / f"{name}.json")
