"""The run config: one YAML file a run."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from equipoise.config.cluster import ClusterConfig
from equipoise.config.compression import CompressionConfig
from equipoise.config.cost import CostConfig
from equipoise.config.data import DataConfig
from equipoise.config.measurement import MeasurementConfig
from equipoise.config.model import ModelConfig
from equipoise.config.search import ConstraintsConfig, SearchConfig
from equipoise.config.section import Section
from equipoise.config.serving import ServingConfig
from equipoise.config.training import DistillationConfig, TrainingConfig


class RunConfig(Section):
    """Everything a run is made of; the resolved form is written beside the results."""

    name: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")] = Field(
        description="Names the run; lower-case letters, digits and dashes."
    )
    task: str = Field("text_classification", description="A registered task family.")
    seed: int = Field(13, ge=0, lt=2**32, description="Seeds splits, training, sampling and intervals.")
    output: str | None = Field(None, description="Run folder, a path or URI; default runs/NAME.")
    data: DataConfig
    model: ModelConfig
    training: TrainingConfig = TrainingConfig()
    distillation: DistillationConfig = DistillationConfig()
    compression: CompressionConfig = CompressionConfig()
    search: SearchConfig = SearchConfig()
    measurement: MeasurementConfig = MeasurementConfig()
    cost: CostConfig = CostConfig()
    constraints: ConstraintsConfig = ConstraintsConfig()
    serving: ServingConfig = ServingConfig()
    cluster: ClusterConfig = ClusterConfig()

    @property
    def run_folder(self) -> str:
        """The run folder's path or URI."""
        return self.output or f"runs/{self.name}"
