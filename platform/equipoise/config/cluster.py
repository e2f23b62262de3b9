"""Where and on what a run or a deployment goes on Kubernetes."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints, model_validator

from equipoise.config.section import NodeLabel, Section

DnsLabel = Annotated[str, StringConstraints(pattern=r"^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$")]
AbsolutePath = Annotated[str, StringConstraints(pattern=r"^/[^\s:]*[^\s:/]$")]


class Toleration(Section):
    """A taint that pods may stand."""

    key: str | None = Field(None, description="The taint's key; none is every taint.")
    operator: Literal["Equal", "Exists"] = Field("Equal", description="Equal compares the value too.")
    value: str | None = Field(None, description="The taint's value.")
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(
        None, description="The taint's effect; none is every effect."
    )

    @model_validator(mode="after")
    def _complete(self) -> Toleration:
        if self.operator == "Exists" and self.value is not None:
            raise ValueError("a toleration with operator Exists takes no value")
        if self.operator == "Equal" and self.key is None:
            raise ValueError("a toleration with operator Equal needs a key")
        return self


class WorkerGroup(Section):
    """Workers of one size."""

    name: DnsLabel = Field("workers", description="Names the group's pods.")
    cpus: int = Field(4, ge=1, description="Cores a worker.")
    memory_gib: float = Field(16, gt=0, description="Memory a worker.")
    gpus: int = Field(0, ge=0, description="NVIDIA GPUs a worker.")
    min_workers: int = Field(1, ge=0, description="Workers that are always there.")
    max_workers: int = Field(
        1, ge=1, description="Most workers; above min_workers Ray's autoscaler adds them."
    )
    node_selector: dict[str, str] = Field(default_factory=dict, description="Labels that a node must have.")
    tolerations: tuple[Toleration, ...] = Field((), description="Taints that the workers may stand.")
    spot: NodeLabel | None = Field(
        None, description="KEY=VALUE label of preemptible nodes: it is selected and tolerated."
    )

    @model_validator(mode="after")
    def _ordered(self) -> WorkerGroup:
        if self.min_workers > self.max_workers:
            raise ValueError(f"min_workers {self.min_workers} is above max_workers {self.max_workers}")
        return self


class HeadConfig(Section):
    """The head pod: Ray's control processes and the driver."""

    cpus: int = Field(2, ge=1, description="Cores of the head pod.")
    memory_gib: float = Field(8, gt=0, description="Memory of the head pod.")
    node_selector: dict[str, str] = Field(default_factory=dict, description="Labels that its node must have.")
    tolerations: tuple[Toleration, ...] = Field((), description="Taints that it may stand.")


class StorageConfig(Section):
    """What the pods read and write beyond their own life."""

    claim: DnsLabel | None = Field(
        None, description="PersistentVolumeClaim for run folders; without one they end with the cluster."
    )
    mount_path: AbsolutePath = Field("/mnt/equipoise", description="Where the pods see it.")
    bucket: str | None = Field(
        None, description="URI, such as s3://bucket/prefix, that bundles are uploaded to for deployment."
    )
    secret: DnsLabel | None = Field(
        None, description="Secret whose keys become environment variables: the bucket's credentials."
    )


class ClusterConfig(Section):
    """Kubernetes with KubeRay; `equipoise run` ignores it."""

    namespace: DnsLabel | None = Field(None, description="Namespace; default: the kubeconfig context's.")
    image: str | None = Field(None, description="Image with Equipoise and Ray, from k8s/image.")
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = Field(
        "IfNotPresent", description="When nodes pull the image."
    )
    image_pull_secrets: tuple[str, ...] = Field((), description="Secrets for a private registry.")
    service_account: DnsLabel | None = Field(None, description="Service account of the pods.")
    priority_class: str | None = Field(None, description="PriorityClass of the pods.")
    queue: str | None = Field(None, description="Kueue LocalQueue that admits the job.")
    head: HeadConfig = HeadConfig()
    worker_groups: tuple[WorkerGroup, ...] = Field((), description="Without any, the head works alone.")
    storage: StorageConfig = StorageConfig()
    keep_s: int = Field(600, ge=0, description="Seconds that the cluster outlives its job.")
    time_limit_s: int | None = Field(None, ge=1, description="End the job after so many seconds.")
    retries: int = Field(0, ge=0, le=10, description="New clusters tried after a failed one.")
    api_keys_secret: DnsLabel = Field(
        "api-keys",
        description="Secret whose `keys.json` holds a service's API keys; `equipoise keys` makes it.",
    )
    redis_address: str | None = Field(
        None, description="HOST:PORT of a Redis that lets a service outlive its head pod."
    )
    redis_secret: DnsLabel | None = Field(None, description="Secret whose key `password` opens that Redis.")

    @property
    def autoscaling(self) -> bool:
        """Whether Ray's autoscaler has anything to decide."""
        return any(group.min_workers < group.max_workers for group in self.worker_groups)

    @model_validator(mode="after")
    def _consistent(self) -> ClusterConfig:
        names = [group.name for group in self.worker_groups]
        if len(set(names)) < len(names):
            raise ValueError("two worker groups have the same name")
        if self.queue is not None and self.autoscaling:
            raise ValueError("Kueue admits clusters of a fixed size: set min_workers to max_workers")
        if self.redis_secret is not None and self.redis_address is None:
            raise ValueError("redis_secret needs redis_address")
        return self
