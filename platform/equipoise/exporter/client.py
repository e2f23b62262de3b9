"""Reading Prometheus endpoints: one page, or one metric off it."""

from __future__ import annotations

import http.client
import socket
import urllib.request
from collections.abc import Iterator, Mapping
from urllib.parse import urlsplit

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from equipoise.errors import InputError, ServiceError

TIMEOUT_S = 5.0
MAX_PAGE_BYTES = 64 * 2**20

# Metrics are read from loopback or inside a cluster; a proxy of the environment has no part in it.
_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def read_samples(url: str, prefix: str, timeout_s: float = TIMEOUT_S) -> list[Sample]:
    """The samples of a metrics page whose names start with `prefix`; the rest is not parsed.

    A URL that starts with `dns+http://` stands for the pages of every address that its host has, as
    that of a headless Kubernetes service has one for each pod; their samples come one after another.

    Raises:
        InputError: the URL is not http or https.
        ServiceError: no answer within `timeout_s` seconds, or no metrics page.
    """
    if url.startswith("dns+http://"):
        pages = _pages(url.removeprefix("dns+"))
        return [sample for page in pages for sample in read_samples(page, prefix, timeout_s)]
    if not url.startswith(("http://", "https://")):
        raise InputError("is no http or https URL", where="metrics URL", value=url)
    try:
        with _direct.open(url, timeout=timeout_s) as response:
            page = response.read(MAX_PAGE_BYTES).decode("utf-8")
        return list(_parse(page, prefix))
    except (OSError, http.client.HTTPException) as error:
        raise ServiceError(f"metrics cannot be read: {error}", where=url) from error
    except ValueError as error:
        raise ServiceError(f"is no metrics page: {error}", where=url) from error


def read_metric(
    url: str, name: str, labels: Mapping[str, str] | None = None, timeout_s: float = TIMEOUT_S
) -> float | None:
    """Sum of a metric's samples that carry these labels, whatever others they have; None without any.

    Args:
        url: the metrics page.
        name: full sample name, such as `equipoise_requests_total`.
        labels: labels and values that a sample must have.
        timeout_s: longest wait for the page.

    Raises:
        InputError: the URL is not http or https.
        ServiceError: the page cannot be read.
    """
    wanted = dict(labels or {})
    values = [
        sample.value
        for sample in read_samples(url, name, timeout_s)
        if sample.name == name and wanted.items() <= sample.labels.items()
    ]
    return sum(values) if values else None


def _pages(url: str) -> list[str]:
    """The same URL once for each address of its host."""
    parts = urlsplit(url)
    try:
        found = socket.getaddrinfo(parts.hostname, parts.port or 80, type=socket.SOCK_STREAM)
    except OSError as error:
        raise ServiceError(f"metrics cannot be read: {error}", where=f"dns+{url}") from error
    hosts = sorted(
        {f"[{host}]" if ":" in host else host for *_, (host, *_) in found if isinstance(host, str)}
    )
    return [parts._replace(netloc=f"{host}:{parts.port or 80}").geturl() for host in hosts]


def _parse(page: str, prefix: str) -> Iterator[Sample]:
    lines = "".join(f"{line}\n" for line in page.splitlines() if line.startswith(prefix))
    for family in text_string_to_metric_families(lines):
        yield from family.samples
