"""Names of jobs and services: derived from what they run, so that the same thing twice is one thing."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

from equipoise.config import RunConfig
from equipoise.errors import ConfigError

MAX_NAME = 47
"""KubeRay's bound on the names of RayJobs and RayServices; it appends to them."""

MANAGER = "equipoise"
"""Field manager of server-side apply, and value of `app.kubernetes.io/managed-by`."""

_HASH = 8
_ATTEMPT = re.compile(r"-([2-9]|[1-9][0-9]+)$")
# Where a run goes and is kept does not change what it is.
_PLACE = ("cluster", "output")


def submission_id(config: RunConfig, attempt: int = 1, until: str | None = None) -> str:
    """`NAME-HASH`, and from the second attempt on `NAME-HASH-ATTEMPT`; `NAME-UNTIL-HASH` of a part.

    The hash covers the resolved config less `cluster` and `output`: a run and its parts share it.
    """
    values = {key: value for key, value in config.model_dump(mode="json").items() if key not in _PLACE}
    part = "" if until is None else f"-{until}"
    stem = _label(config.name)[: MAX_NAME - _HASH - 5 - len(part)].rstrip("-") + part
    return attempt_id(f"{stem}-{_digest(values)}", attempt)


def attempt_id(first: str, attempt: int) -> str:
    """The id of an attempt, given that of the first."""
    return first if attempt == 1 else f"{first}-{attempt}"


def attempt_of(found: str, first: str) -> int | None:
    """Which attempt of `first` an id is; None where it is another job's."""
    if found == first:
        return 1
    matched = _ATTEMPT.search(found)
    return int(matched.group(1)) if matched and found[: matched.start()] == first else None


def service_name(name: str) -> str:
    """A RayService's name out of a model's.

    Raises:
        ConfigError: nothing of it can stand in a DNS name.
    """
    return _label(name)[:MAX_NAME].rstrip("-")


def object_labels(name: str, component: str) -> dict[str, str]:
    """Kubernetes' recommended labels."""
    return {
        "app.kubernetes.io/name": MANAGER,
        "app.kubernetes.io/instance": name,
        "app.kubernetes.io/component": component,
        "app.kubernetes.io/managed-by": MANAGER,
    }


def pod_labels(name: str, component: str) -> dict[str, str]:
    """Labels of pods; network policies select by `app.kubernetes.io/part-of`.

    `app.kubernetes.io/name` is KubeRay's there: its head services select by it.
    """
    labels = object_labels(name, component)
    del labels["app.kubernetes.io/name"]
    return {**labels, "app.kubernetes.io/part-of": MANAGER}


def _label(name: str) -> str:
    plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    if not plain:
        raise ConfigError("holds no letter or digit", where="name", value=name)
    # A DNS-1035 label starts with a letter.
    return plain if plain[0].isalpha() else f"run-{plain}"


def _digest(values: dict[str, Any]) -> str:
    content = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(content.encode()).hexdigest()[:_HASH]
