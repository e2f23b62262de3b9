"""The endpoint."""

from __future__ import annotations

from pydantic import Field

from equipoise.config.section import Section

LOOPBACK = ("127.0.0.1", "localhost", "::1")
"""Hosts that only this machine reaches."""


class ServingConfig(Section):
    """One machine's endpoint; loopback unless a host is given."""

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8000, ge=1024, le=65535, description="The endpoint's port.")
    metrics_port: int = Field(9464, ge=1024, le=65535, description="The cost exporter's port.")
    api_keys: str | None = Field(
        None, description="File of hashed API keys; required where the host is not loopback."
    )
    access_log: str | None = Field(
        None, description="Folder for access logs, one file a replica; they hold no payloads."
    )
    replicas: int = Field(1, ge=1, description="Replicas.")
    max_replicas: int | None = Field(
        None,
        ge=1,
        description="Scale by the load curve between `replicas` and so many; None keeps `replicas`.",
    )
    max_usd_per_hour: float | None = Field(
        None, gt=0, description="Most that scaled replicas may cost; None sets no limit."
    )
    cores_per_replica: int = Field(1, ge=1, description="Cores, and engine threads, of each replica.")
    pin_cores: bool = Field(
        True,
        description="Keep each replica on cores of its own; not done where the container has a CPU quota.",
    )
    max_batch_size: int = Field(32, ge=1, description="Rows a batch at most.")
    max_batch_tokens: int = Field(1024, ge=1, description="Tokens a batch at most, padding included.")
    max_cached_tokens: int = Field(
        16_384,
        ge=64,
        description="Tokens whose keys and values a generating replica keeps.",
    )
    max_new_tokens: int = Field(512, ge=1, description="Most tokens that one generated answer may have.")
    max_wait_ms: float = Field(2000.0, gt=0, description="Longer queues, by their expected wait, get 429.")
    max_inputs: int = Field(1024, ge=1, description="Rows a request at most; more get 413.")
    max_body_bytes: int = Field(1_048_576, ge=1024, description="Larger requests get 413.")
    timeout_s: float = Field(30.0, gt=0, description="Longest time one request may take.")
    client_connections: int = Field(16, ge=1, description="Connections of the run's own test client.")
    teacher_rows: int | None = Field(
        None, ge=1, description="Test rows the teacher is served on for comparison; None is all."
    )

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine reaches the endpoint."""
        return self.host in LOOPBACK
