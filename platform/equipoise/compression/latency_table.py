"""What a layer takes at each number of heads and each FFN width, and the structure that fits a time.

After ZipLM (Kurtic et al., 2023): the time comes from a table that was measured on the hardware at hand, and
dynamic programming picks for every layer what loses the least importance.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from equipoise.compression.importance import Scores
from equipoise.errors import ConfigError

_STEPS = 2000
"""Parts that the time for the layers is cut into; a layer's own is rounded up to them."""


class LatencyTable(BaseModel):
    """Milliseconds of one request, the median at the data's own lengths, tokenizer included, one thread.

    `heads_ms[n]` and `ffn_ms[n]`: what a layer takes less than a whole one with so many heads or neurons.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    engine: str
    precision: str
    fingerprint: str
    layers: int = Field(ge=1)
    whole_ms: float
    """The whole model."""
    whole_p99_ms: float
    layer_ms: float
    """One whole layer."""
    heads_ms: dict[int, float]
    ffn_ms: dict[int, float]

    @property
    def rest_ms(self) -> float:
        """Everything but the layers."""
        return self.whole_ms - self.layers * self.layer_ms

    def layer(self, heads: int, ffn: int) -> float:
        """A layer of such widths."""
        least = 0.01 * self.layer_ms
        return max(least, self.layer_ms - self.heads_ms[heads] - self.ffn_ms[ffn])

    def time_ms(self, heads: Sequence[int], ffn: Sequence[int]) -> float:
        """A model of such layers."""
        return self.rest_ms + sum(self.layer(*widths) for widths in zip(heads, ffn, strict=True))

    @property
    def fastest_ms(self) -> float:
        """One layer of the cheapest widths."""
        return self.rest_ms + min(self.layer(heads, ffn) for heads in self.heads_ms for ffn in self.ffn_ms)

    def budget_ms(self, *, speedup: float | None, p99_ms: float | None, where: str) -> float:
        """Median milliseconds that a target leaves; p99 is taken to shrink as the median does.

        Raises:
            ConfigError: the table's fastest structure is slower.
        """
        shrunk = 1 / speedup if speedup is not None else (p99_ms or 0) / self.whole_p99_ms
        budget = self.whole_ms * shrunk
        if budget < self.fastest_ms:
            share = self.fastest_ms / self.whole_ms
            nearest = (
                f"{_down(1 / share):g}" if speedup is not None else f"{_up(self.whole_p99_ms * share):g}"
            )
            raise ConfigError(
                f"is beyond the latency table of {self.engine} {self.precision}: its fastest structure, one "
                f"layer, takes {share:.1%} of the whole model's time",
                where=where,
                value=speedup if speedup is not None else p99_ms,
                remedy=f"ask for {nearest} at most" if speedup is not None else f"ask for {nearest} or more",
            )
        return budget


class Fitted(BaseModel):
    """What the table's dynamic programme picks: layers that are kept, and their widths."""

    model_config = ConfigDict(frozen=True)

    layers: tuple[int, ...]
    heads: tuple[int, ...]
    ffn: tuple[int, ...]
    expected_ms: float
    lost: float
    """Importance of all that is left out."""


def fit_structure(table: LatencyTable, scores: Scores, budget_ms: float) -> Fitted:
    """The structure within a time that loses the least importance; a layer may go altogether.

    Args:
        budget_ms: for the whole model; at least `table.fastest_ms`.
    """
    # None is the layer left out. The cheapest layer sets the size of a step that one layer still fits in.
    options: list[tuple[int, int] | None] = [None]
    options += [(heads, ffn) for heads in sorted(table.heads_ms) for ffn in sorted(table.ffn_ms)]
    room = max(budget_ms - table.rest_ms, 1e-9)
    costs = [0.0 if option is None else table.layer(*option) for option in options]
    steps = [0 if cost == 0 else max(1, int(np.ceil(cost / room * _STEPS - 1e-9))) for cost in costs]
    # best[some layer kept yet][steps spent]: least importance lost.
    best = np.full((2, _STEPS + 1), np.inf)
    best[0, 0] = 0.0
    picked: list[np.ndarray[tuple[int, int], np.dtype[np.int64]]] = []
    for heads, ffn in zip(scores.heads, scores.ffn, strict=True):
        losses = [_lost(heads, ffn, option) for option in options]
        after = np.full_like(best, np.inf)
        choice = np.full(best.shape, -1, dtype=np.int64)
        for place, (step, loss) in enumerate(zip(steps, losses, strict=True)):
            if step > _STEPS:
                continue
            for kept in (0, 1):
                target = 1 if place else kept
                found = np.full(_STEPS + 1, np.inf)
                found[step:] = best[kept, : _STEPS + 1 - step] + loss
                better = found < after[target]
                after[target][better] = found[better]
                choice[target][better] = 2 * place + kept
        best = after
        picked.append(choice)
    spent, state = int(np.argmin(best[1])), 1
    lost = float(best[1, spent])
    kept_options: list[tuple[int, tuple[int, int]]] = []
    for layer in range(len(picked) - 1, -1, -1):
        place, state = divmod(int(picked[layer][state, spent]), 2)
        option = options[place]
        spent -= steps[place]
        if option is not None:
            kept_options.append((layer, option))
    kept_options.reverse()
    kept_heads = tuple(widths[0] for _, widths in kept_options)
    kept_ffn = tuple(widths[1] for _, widths in kept_options)
    return Fitted(
        layers=tuple(layer for layer, _ in kept_options),
        heads=kept_heads,
        ffn=kept_ffn,
        expected_ms=table.time_ms(kept_heads, kept_ffn),
        lost=lost,
    )


def _lost(heads: Sequence[float], ffn: Sequence[float], option: tuple[int, int] | None) -> float:
    kept_heads, kept_ffn = option or (0, 0)
    return sum(sorted(heads)[: len(heads) - kept_heads]) + sum(sorted(ffn)[: len(ffn) - kept_ffn])


def _down(value: float) -> float:
    return float(np.floor(value * 100) / 100)


def _up(value: float) -> float:
    return float(np.ceil(value * 100) / 100)
