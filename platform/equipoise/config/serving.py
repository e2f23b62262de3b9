"""The endpoint."""

from __future__ import annotations

from pydantic import Field

from equipoise.config.section import Section


class ServingConfig(Section):
    """One machine's endpoint; loopback unless a host is given."""

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8000, ge=1024, le=65535, description="The endpoint's port.")
    metrics_port: int = Field(9464, ge=1024, le=65535, description="The cost exporter's port.")
    replicas: int = Field(1, ge=1, description="Replicas, one core each.")
    max_batch_size: int = Field(32, ge=1, description="Rows a batch at most.")
    batch_wait_ms: float = Field(2.0, ge=0, description="Longest wait for a batch to fill.")
    max_body_bytes: int = Field(1_048_576, ge=1024, description="Larger requests get 413.")
    timeout_s: float = Field(30.0, gt=0, description="Longest time one request may take.")
    client_connections: int = Field(16, ge=1, description="Connections of the run's own test client.")
    teacher_rows: int | None = Field(
        None, ge=1, description="Test rows the teacher is served on for comparison; None is all."
    )
