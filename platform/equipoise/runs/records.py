"""The records that stages exchange and run folders hold: plain, frozen, JSON in and out."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from equipoise.config.search import Importance, Vocabulary

TOKEN_LIKELIHOOD = "token likelihood"  # noqa: S105 - a metric
"""Metric of language models: the geometric mean of the tokens' likelihoods, 1 over the perplexity."""


class Record(BaseModel):
    """A frozen record. Unknown keys are ignored, so that newer folders stay readable."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Figure(Record):
    """A measured value with its 95% interval and the number of rows or timings behind it."""

    value: float
    low: float
    high: float
    n: int = Field(ge=1)


class CostTerms(Record):
    """The four terms of a candidate's life, in dollars over the horizon at the stated traffic.

    `mean_replicas` (`replicas` in the busiest hour) serve `rps` requests a second on average;
    `serving_usd_per_1k` is their price (idle time included) over the requests, `total_usd_per_1k`
    adds every other term.
    """

    rps: float
    horizon_months: float
    profile: str = "constant"
    p99_ms: float | None = None
    """The latency objective that the replicas keep; None where there is none, or none can keep it."""
    capacity_rps: float | None = None
    """Requests a second that each of `replicas` is planned with; None in records of earlier versions."""
    replicas: int
    mean_replicas: float | None = None
    """None in records of earlier versions, which knew constant traffic only."""
    compute_training_usd: float
    compute_search_usd: float
    compute_serving_usd: float
    storage_usd: float
    data_usd: float
    maintenance_usd: float
    serving_usd_per_1k: float
    total_usd_per_1k: float
    serving_usd_month: float
    node_idle_usd_month: float | None = None
    """What the replicas leave idle on nodes of their own; in the terms only under `cost.whole_nodes`."""

    @property
    def compute_usd(self) -> float:
        """Training, search and serving together."""
        return self.compute_training_usd + self.compute_search_usd + self.compute_serving_usd

    @property
    def total_usd(self) -> float:
        """All four terms."""
        return self.compute_usd + self.storage_usd + self.data_usd + self.maintenance_usd


class Quality(Record):
    """What a model is worth, on one split."""

    metric_name: str
    metric: Figure
    macro_f1: Figure | None = None
    """None for a family without a fixed set of labels."""
    robustness: Figure | None = None
    """Metric on corrupted input as a share of the clean figure on the same rows."""
    worst_corruption: str | None = None
    worst_corruption_metric: float | None = None
    corruptions: dict[str, float] = {}
    gap: float | None = None
    """Metric on training rows minus metric on this split."""
    calibration_error: Figure
    temperature: float = 1.0

    @property
    def perplexity(self) -> Figure | None:
        """Of a language model; None for the other families, and where a likelihood is 0."""
        found = self.metric
        if self.metric_name != TOKEN_LIKELIHOOD or found.low <= 0:
            return None
        return Figure(value=1 / found.value, low=1 / found.high, high=1 / found.low, n=found.n)


class Speed(Record):
    """What a model takes, on one pinned thread, tokenizer included, at the data's own lengths.

    Times are those of a calm machine: without the wait for a core, divided by `slowdown` (by 1.5 at most).
    """

    latency_p50_ms: Figure
    latency_p99_ms: Figure
    throughput_rps: Figure
    batch_size: int
    """Rows a batch on average in `throughput_rps`, of the size that carries most within the objective."""
    threads: int
    wall_p50_ms: float | None = None
    """Median of single requests by the wall clock, as they came."""
    slowdown: float = 1.0
    """How much slower than calm the machine was meanwhile (median over requests), at least 1."""
    waited_share: float = 0.0
    """Share of the wall time of single requests spent waiting for a core that another process held."""
    peak_memory_bytes: int | None = None
    """Resident memory at its peak of a new process that runs the model alone, libraries included."""


class Agreement(Record):
    """An exported model against its torch original, and against itself in other batches."""

    max_logit_difference: float
    changed_labels: float
    """Share of labels that differ from the torch original's."""
    neighbour_changes: float
    """Share of labels that differ between batch 1 and any of four shuffled batches."""
    max_neighbour_difference: float
    """The largest move of a logit between batch 1 and a shuffled batch."""
    rows: int


class Recipe(Record):
    """How a candidate is made from the teacher; its hash names it."""

    depth: int
    layers: tuple[int, ...]
    """The teacher's layers that are kept, counted from 0."""
    distilled: bool
    engine: str
    precision: str
    heads: tuple[int, ...] | None = None
    """Attention heads that each kept layer keeps; None is all."""
    ffn: tuple[int, ...] | None = None
    """Neurons that each kept layer's feed-forward part keeps; None is all."""
    channels: tuple[int, ...] | None = None
    """Of a CNN, channels that its stem, each stage and a last projection keep; None is all."""
    importance: Importance = "taylor"
    """By which scores heads, neurons and channels are kept."""
    vocabulary: Vocabulary = "full"
    """`task`: only the pieces that the training rows use, and those that any word can be made of."""
    sparsity: float = 0.0
    """Share of the weights of each matrix that are zero."""
    target: str | None = None
    """What the widths were chosen for, such as `speedup 3`; None where they were given."""
    recovery: float = 1.0
    """Share of `distillation.epochs` that the student was trained for; below 1 is a short recovery."""

    @property
    def narrowed(self) -> bool:
        """Whether heads, neurons or channels are left out."""
        return self.heads is not None or self.ffn is not None or self.channels is not None

    @property
    def untouched(self) -> bool:
        """Whether the model is the teacher's own."""
        return not self.distilled and self.vocabulary == "full"

    @property
    def steps(self) -> list[dict[str, dict[str, Any]]]:
        """The recipe as the ordered steps of `compression.recipes`."""
        prune: dict[str, Any] = {"layers": list(self.layers)}
        if self.heads is not None:
            prune["heads"] = list(self.heads)
        if self.ffn is not None:
            prune["ffn"] = list(self.ffn)
        if self.channels is not None:
            prune["channels"] = list(self.channels)
        if self.narrowed:
            prune["importance"] = self.importance
        if self.vocabulary != "full":
            prune["vocabulary"] = self.vocabulary
        if self.sparsity:
            prune["sparsity"] = self.sparsity
        quantize = {"engine": self.engine, "precision": self.precision}
        steps: list[dict[str, dict[str, Any]]] = [{"prune": prune}]
        if self.distilled:
            steps.append({"distil": {}})
        return [*steps, {"quantize": quantize}]

    @property
    def structure(self) -> str:
        """Short name of the structure, such as `2 layers (0,5)`."""
        noun = "layer" if self.depth == 1 else "layers"
        whole = self.depth > 2 and self.layers == tuple(range(self.layers[0], self.layers[0] + self.depth))
        kept = f"{self.layers[0]}-{self.layers[-1]}" if whole else ",".join(map(str, self.layers))
        parts = [f"{self.depth} {noun} ({kept})"]
        parts += [f"heads {_short(self.heads)}"] if self.heads is not None else []
        parts += [f"FFN {_short(self.ffn)}"] if self.ffn is not None else []
        parts += [f"channels {_short(self.channels)}"] if self.channels is not None else []
        parts += ["by magnitude"] if self.narrowed and self.importance == "magnitude" else []
        parts += ["task vocabulary"] if self.vocabulary == "task" else []
        parts += [f"{self.sparsity:.0%} zeros"] if self.sparsity else []
        parts += [f"{self.recovery:.0%} recovery"] if self.recovery < 1 else []
        return ", ".join(parts)

    @property
    def label(self) -> str:
        """Short name of the whole recipe."""
        return f"{self.structure} {self.precision} {self.engine}"


def _short(counts: tuple[int, ...]) -> str:
    return str(counts[0]) if len(set(counts)) == 1 else "/".join(map(str, counts))


class Candidate(Record):
    """One measured and priced recipe: `candidates/<recipe_hash>.json`."""

    recipe_hash: str
    recipe: Recipe
    is_teacher: bool = False
    eligible: bool
    rejection: str | None = None
    quality: Quality
    speed: Speed
    agreement: Agreement
    cost: CostTerms
    bytes: int
    parameters: int
    metric_drop: Figure
    """The teacher's metric minus this one's, paired by row."""
    hardware: dict[str, Any]
    seed: int
    revision: str
    spared: tuple[str, ...] = ()
    """Operations that stay in fp32 in a model of `int8_guarded`."""
    seconds: dict[str, float] = {}
    """Wall seconds by phase: train, export, quality, speed."""
    nodes: dict[str, tuple[str, ...]] = {}
    """Ray nodes by phase: train, quality, speed; first eight digits, as the ledger names them."""
    measured_at: str | None = None
    """When it was finished, ISO 8601, UTC."""


class LedgerLine(Record):
    """One metered quantity (the column names follow FOCUS).

    `kind` is `node` for a node's start-to-stop period and `usage` for what ran on it.
    """

    run_id: str
    kind: Literal["usage", "node"]
    component: str
    """training, search, evaluation, serving, pipeline, storage."""
    charge_class: Literal["workload", "idle", "overhead"]
    resource: str
    """Node type of the price book, or a storage class."""
    quantity: float
    unit: str
    """`core-seconds`, `node-seconds` or `GB-months`."""
    list_unit_price: float
    effective_unit_price: float
    billed_cost_usd: float
    period_start: str
    """ISO 8601, UTC."""
    period_end: str
    detail: str = ""
    resource_type: Literal["", "node", "task", "trial", "worker", "replica", "artefact", "cache"] = ""
    resource_id: str = ""
    """Which node, task, worker, replica or artefact."""
    requested: float | None = None
    """Reserved, in `unit`; None where the line is older than this column."""
    used: float | None = None
    """Measured, in `unit`; None where it was not measured."""
    basis: Literal["request", "usage"] = "request"
    """Which of the two is the larger one, and so the quantity (OpenCost's max(request, usage))."""
    requests: int = 0
    """Requests answered in the period, of a replica."""
    writer: str = ""
    number: int | None = None
    """Its place among its writer's lines, from 0: a gap is a lost line, a repeat a doubled one."""
