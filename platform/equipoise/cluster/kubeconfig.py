"""Finding the API server, the user and the namespace, as kubectl finds them."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Any

from equipoise.cluster.kubernetes_api import KubernetesApi
from equipoise.cluster.kubernetes_transport import Transport
from equipoise.errors import ConfigError

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where a pod finds the token of its service account, the server's CA, and its namespace."""

_IN_CLUSTER = "KUBERNETES_SERVICE_HOST"


def connect(
    namespace: str | None = None, context: str | None = None, kubeconfig: str | None = None
) -> KubernetesApi:
    """The API server that kubectl would talk to.

    The kubeconfig is the given one, else those of $KUBECONFIG, else `~/.kube/config`, else the pod's
    own service account. The namespace is the given one, else the context's or the pod's, else `default`.

    Raises:
        ConfigError: there is no kubeconfig, or the context is not in it, or its credentials cannot be read.
    """
    import yaml
    from kubernetes import client, config
    from kubernetes.config import ConfigException

    settings = _settings()
    # One place decides what is tried again: `Transport.json`.
    settings.retries = False
    location = kubeconfig or os.environ.get("KUBECONFIG") or str(Path("~/.kube/config").expanduser())
    present = any(Path(part).is_file() for part in location.split(os.pathsep) if part)
    if not present and not kubeconfig and not context and _IN_CLUSTER in os.environ:
        own = _load_in_cluster(settings)
        return KubernetesApi(
            Transport(client.ApiClient(settings), f"cluster {settings.host}"), namespace or own
        )
    if not present:
        raise ConfigError(
            "no kubeconfig",
            where=location,
            remedy="point --kubeconfig or KUBECONFIG at one, as for kubectl",
        )
    try:
        contexts, active = config.list_kube_config_contexts(config_file=location)  # type: ignore[no-untyped-call]
    except (ConfigException, yaml.YAMLError, TypeError, KeyError, AttributeError) as error:
        raise ConfigError(f"the kubeconfig cannot be used: {error}", where=location) from error
    chosen = next((entry for entry in contexts if entry["name"] == context), None) if context else active
    if chosen is None:
        known = ", ".join(sorted(entry["name"] for entry in contexts)) or "none"
        raise ConfigError(
            "no such context",
            where=location,
            value=context,
            remedy=f"choose one of: {known}",
        )
    try:
        config.load_kube_config(  # type: ignore[no-untyped-call]
            config_file=location, context=chosen["name"], client_configuration=settings, persist_config=False
        )
    except (ConfigException, OSError, ValueError) as error:
        raise ConfigError(
            f"its credentials cannot be used: {error}",
            where=f"context {chosen['name']}",
            remedy="log in again",
        ) from error
    space = namespace or chosen["context"].get("namespace") or "default"
    given = {"--context": context, "--kubeconfig": kubeconfig}
    options = "".join(f" {option} {shlex.quote(value)}" for option, value in given.items() if value)
    return KubernetesApi(Transport(client.ApiClient(settings), f"context {chosen['name']}"), space, options)


def _settings() -> Any:
    """The client's settings, which take the line break off a token that was read from a file.

    The client's own loaders leave it on, and Python's HTTP refuses the header in words that hold the token.
    """
    from kubernetes import client

    class Settings(client.Configuration):
        def get_api_key_with_prefix(self, identifier: str, alias: str | None = None) -> str | None:
            found: str | None = super().get_api_key_with_prefix(identifier, alias)
            return found.strip() if found else found

    return Settings()


def _load_in_cluster(settings: Any) -> str:
    """Take a pod's own service account into the client's settings; returns the pod's namespace.

    Raises:
        ConfigError: the token or the CA is not there, or is empty.
    """
    from kubernetes.config import ConfigException
    from kubernetes.config.incluster_config import InClusterConfigLoader

    loader = InClusterConfigLoader(  # type: ignore[no-untyped-call]
        token_filename=str(SERVICE_ACCOUNT / "token"), cert_filename=str(SERVICE_ACCOUNT / "ca.crt")
    )
    try:
        loader.load_and_set(settings)  # type: ignore[no-untyped-call]
        own = SERVICE_ACCOUNT / "namespace"
        found = own.read_text(encoding="utf-8").strip() if own.is_file() else ""
    except (ConfigException, OSError) as error:
        raise ConfigError(
            f"the pod's service account cannot be used: {error}",
            where="in cluster",
            remedy="mount its token (automountServiceAccountToken), or give --kubeconfig",
        ) from error
    # As kubectl: what the pod's author says goes before the file.
    return os.environ.get("POD_NAMESPACE") or found or "default"
