"""The recipes a run config allows, and which are measured first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from equipoise.compression.export import supported
from equipoise.compression.structure import student_layers
from equipoise.config.search import SearchConfig
from equipoise.data import Layout
from equipoise.engines import is_installed
from equipoise.errors import ConfigError
from equipoise.runs import Recipe

Point = dict[str, Any]


class Space:
    """Structures × runtimes; a point of the sampler is `{"structure": name, "runtime": name}`.

    Flat on purpose: each category is a whole valid choice, so no sampled point is impossible and
    none stands for the same recipe as another.
    """

    def __init__(
        self,
        search: SearchConfig,
        teacher_depth: int,
        required: tuple[int, ...] = (),
        *,
        layout: Layout = "text",
    ) -> None:
        self.teacher_depth = teacher_depth
        self.structures = _structures(search, teacher_depth, required)
        self.runtimes = _runtimes(search, layout)

    def distributions(self) -> dict[str, Any]:
        """Optuna distributions by parameter."""
        from optuna.distributions import CategoricalDistribution

        return {
            "structure": CategoricalDistribution(tuple(self.structures)),
            "runtime": CategoricalDistribution(tuple(self.runtimes)),
        }

    def recipe(self, point: Point) -> Recipe:
        """The recipe of a point."""
        layers = self.structures[point["structure"]]
        engine, precision = self.runtimes[point["runtime"]]
        return Recipe(
            depth=len(layers),
            layers=layers,
            distilled=len(layers) < self.teacher_depth,
            engine=engine,
            precision=precision,
        )

    def point(self, recipe: Recipe) -> Point | None:
        """The point of a recipe; None where this space does not hold it."""
        point = {
            "structure": _structure_name(recipe.layers),
            "runtime": _runtime_name(recipe.engine, recipe.precision),
        }
        known = point["structure"] in self.structures and point["runtime"] in self.runtimes
        return point if known else None

    @property
    def teacher(self) -> Recipe:
        """The fp32 teacher in PyTorch, which every other candidate is held against."""
        layers = tuple(range(self.teacher_depth))
        return Recipe(depth=len(layers), layers=layers, distilled=False, engine="torch", precision="fp32")

    def anchors(self) -> list[Recipe]:
        """Measured first: the teacher, the teacher on each engine at its least precision, and every
        structure on the engine that is usually the fastest."""
        found = [self.teacher]
        for engine in dict.fromkeys(engine for engine, _ in self.runtimes.values()):
            point = {"structure": _structure_name(self.teacher.layers), "runtime": self._least(engine)}
            found.append(self.recipe(point))
        last = list(self.runtimes.values())[-1][0]
        found += [self.recipe({"structure": name, "runtime": self._least(last)}) for name in self.structures]
        return list(dict.fromkeys(found))

    def _least(self, engine: str) -> str:
        # Dynamic int8 is the last to try: it fails the neighbour check on most models.
        own = {name: precision for name, (owner, precision) in self.runtimes.items() if owner == engine}
        names = [name for name, precision in own.items() if precision != "int8_dynamic"]
        return (names or list(own))[-1]

    @property
    def size(self) -> int:
        """Number of recipes."""
        return len(self.structures) * len(self.runtimes)


def _structures(
    search: SearchConfig, teacher_depth: int, required: tuple[int, ...]
) -> dict[str, tuple[int, ...]]:
    every: list[Sequence[int]] = [range(teacher_depth)]
    every += [
        student_layers(teacher_depth, depth, choice, required)
        for depth in sorted(set(search.depths), reverse=True)
        for choice in search.layers
    ]
    return {_structure_name(tuple(layers)): tuple(layers) for layers in every}


def _runtimes(search: SearchConfig, layout: Layout) -> dict[str, tuple[str, str]]:
    found = {"torch-fp32": ("torch", "fp32")}
    for engine in ("torch", "onnxruntime", "openvino"):
        if engine not in search.engines:
            continue
        if not is_installed(engine):
            raise ConfigError(
                "engine is not installed",
                where="search.engines",
                value=engine,
                remedy=f"pip install {engine}, or leave it out",
            )
        for precision in supported(layout)[engine]:
            if precision in search.precisions:
                found[_runtime_name(engine, precision)] = (engine, precision)
    return found


def _structure_name(layers: tuple[int, ...]) -> str:
    return ",".join(map(str, layers))


def _runtime_name(engine: str, precision: str) -> str:
    return f"{engine}-{precision}"
