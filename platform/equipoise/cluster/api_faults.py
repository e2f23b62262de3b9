"""What an API server's answer means to the person at the command line."""

from __future__ import annotations

import json
import re

from equipoise.errors import ConfigError, EquipoiseError, InputError, ServiceError

KUBERAY = "1.7.0"
"""The KubeRay whose custom resources Equipoise writes."""

INSTALL_KUBERAY = (
    "install it: helm repo add kuberay https://ray-project.github.io/kuberay-helm/ && "
    f"helm install kuberay-operator kuberay/kuberay-operator --version {KUBERAY}"
)

_UNKNOWN_FIELD = ("field not declared in schema", "unknown field")
_MOST = 400


def explain_api_error(
    status: int, content: bytes, *, kind: str, name: str, namespace: str, where: str
) -> EquipoiseError:
    """The error for a status and a body (a `Status` object, or anything else).

    Args:
        status: HTTP status, not a success.
        content: the body.
        kind: of the object asked for.
        name: of the object, or empty.
        namespace: it was asked in.
        where: the context or the server.
    """
    said = _message(content)
    what = f"{kind} {namespace}/{name}" if name else f"{kind} in {namespace}"
    if status == 401:
        return ConfigError(
            "the API server does not accept these credentials; they may have expired",
            where=where,
            remedy="log in again, then repeat the command",
        )
    # A server-side apply of a field that the CRD does not know is answered with 500.
    if kind.startswith("Ray") and any(words in said for words in _UNKNOWN_FIELD):
        return InputError(
            f"KubeRay's CRDs here lack a field that Equipoise sets: {said}",
            where=where,
            remedy=f"upgrade KubeRay and its CRDs to {KUBERAY} or later",
        )
    if status == 403 and "exceeded quota" in said:
        return ServiceError(
            f"the namespace's quota is used up: {said}",
            where=what,
            remedy="wait for other jobs to end, ask for less, or have the quota raised",
        )
    if status == 403 and "status unknown for quota" in said:
        return ServiceError(
            f"the namespace's quota has not been counted yet: {said}",
            where=what,
            remedy="repeat the command in a while",
        )
    if status == 403 and "because it is being terminated" in said:
        return InputError(
            "the namespace is being deleted", where=where, value=namespace, remedy="choose --namespace"
        )
    if status == 403:
        return InputError(
            f"not allowed: {said}",
            where=f"{where}, {what}",
            remedy="ask for a role that may, or choose --namespace",
        )
    if status == 404 and re.search(r'namespaces "[^"]+" not found', said):
        return InputError(
            "no such namespace", where=where, value=namespace, remedy=f"kubectl create namespace {namespace}"
        )
    if status == 404 and kind.startswith("Ray"):
        return InputError(
            f"the API server does not know {kind} of ray.io/v1: KubeRay is missing or older than 1.0",
            where=where,
            remedy=INSTALL_KUBERAY,
        )
    if status == 404:
        return InputError(f"not found: {said}", where=what)
    if status == 409 and "conflict" in said.lower() and "Apply failed" in said:
        return InputError(
            f"another tool manages what this would change: {said}",
            where=what,
            remedy="use --force to take these fields over, or let the other tool make the change",
        )
    if status == 409:
        return ServiceError(
            f"it was changed by someone else at the same time: {said}",
            where=what,
            remedy="look at it, then repeat the command",
        )
    if status in (400, 405, 413, 415, 422):
        return InputError(f"the API server refuses it: {said}", where=what)
    return ServiceError(
        f"the API server answers {status}: {said}", where=where, remedy="repeat the command in a while"
    )


def explain_transport_error(error: Exception, where: str) -> EquipoiseError:
    """The error for a request that got no answer."""
    said = str(error)
    if "CERTIFICATE_VERIFY_FAILED" in said or "certificate" in said.lower():
        return ConfigError(
            "the API server's certificate is not trusted",
            where=where,
            remedy="is this the right cluster? correct certificate-authority in the kubeconfig",
        )
    return ServiceError(
        f"the API server does not answer: {_cause(error)}",
        where=where,
        remedy="is the cluster up, and is this the right context?",
    )


def _message(content: bytes) -> str:
    text = content.decode("utf-8", "replace").strip()
    try:
        body = json.loads(text)
    except ValueError:
        return text[:_MOST] or "no reason was given"
    said = body.get("message") if isinstance(body, dict) else None
    return str(said or text)[:_MOST]


def _cause(error: Exception) -> str:
    """The operating system's own words, which stand innermost."""
    found = str(error)
    reason = getattr(error, "reason", None)
    if isinstance(reason, Exception):
        found = str(reason)
    spoken = re.sub(r"^.*?: (?=\[Errno|Failed|Name or)", "", found)
    return spoken.replace("\n", " ")[:_MOST] or type(error).__name__
