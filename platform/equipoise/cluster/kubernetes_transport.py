"""Requests to the API server: timeouts, retries, and faults in one line.

Built on the official client's configuration and transport. Every request here is safe to repeat.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

from equipoise.cluster.api_faults import explain_api_error, explain_transport_error
from equipoise.errors import EquipoiseError, ServiceError

APPLY = "application/apply-patch+yaml"
CONNECT_S = 10.0

_READ_S = 30.0
_TRIES = 4
_BACKOFF_S = 0.5


class Transport:
    """One API server, spoken to as one user."""

    def __init__(self, client: Any, where: str) -> None:
        self.client = client
        self.where = where
        """What faults name: the context, or the server."""

    def json(
        self,
        method: str,
        path: str,
        kind: str,
        name: str,
        namespace: str,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        content_type: str = "application/json",
        *,
        missing: bool = False,
    ) -> Any:
        """The answer's JSON; tried again on faults that pass; None on a 404 where `missing` is allowed.

        `kind`, `name` and `namespace` are for the fault's words.
        """
        for attempt in range(_TRIES):
            last = attempt == _TRIES - 1
            try:
                response = self.send(method, path, query or {}, body, content_type)
                content = response.data
            except transport_errors() as error:
                found = explain_transport_error(error, self.where)
                if last or not isinstance(found, ServiceError):
                    raise found from error
                time.sleep(_BACKOFF_S * 2**attempt)
                continue
            if missing and response.status == 404 and _is_absence(content):
                return None
            if 200 <= response.status < 300:
                return json.loads(content)
            fault = self.fault(response.status, content, kind, name, namespace)
            if last or not isinstance(fault, ServiceError) or response.status in (403, 409):
                raise fault
            time.sleep(_retry_after(response) or _BACKOFF_S * 2**attempt)
        raise AssertionError("unreachable")

    def fault(self, status: int, content: bytes, kind: str, name: str, namespace: str) -> EquipoiseError:
        """The error for an answer that is none."""
        return explain_api_error(status, content, kind=kind, name=name, namespace=namespace, where=self.where)

    def send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: Any = None,
        content_type: str = "",
        read_s: float = _READ_S,
    ) -> Any:
        """One request, once; the answer of any status, its body unread."""
        headers = {"Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = content_type
        request = self.client.param_serialize(
            method,
            path,
            query_params=list(query.items()),
            header_params=headers,
            # JSON is YAML too, which is what a server-side apply wants.
            body=json.dumps(body) if content_type == APPLY else body,
            auth_settings=["BearerToken"],
        )
        return self.client.call_api(*request, _request_timeout=(CONNECT_S, read_s)).response


def transport_errors() -> tuple[type[Exception], ...]:
    """What a request raises that got no answer."""
    from kubernetes.client import ApiException
    from urllib3.exceptions import HTTPError

    # Below `call_api` no status raises; what the client raises as ApiException is a TLS fault.
    return (HTTPError, OSError, ApiException)


def _is_absence(content: bytes) -> bool:
    """Whether a 404 speaks of an object or a kind, rather than of the namespace around it."""
    return b'namespaces \\"' not in content


def _retry_after(response: Any) -> float:
    value = response.headers.get("Retry-After", "")
    return min(float(value), 10.0) if value.isdigit() else 0.0
