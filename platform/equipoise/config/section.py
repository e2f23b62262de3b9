"""The base of every config section."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, StringConstraints

NodeLabel = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][\w./-]*=[\w.-]*$")]
"""KEY=VALUE of a node, Ray's or Kubernetes'."""


class Section(BaseModel):
    """A frozen part of a config; an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)
