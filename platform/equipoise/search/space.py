"""The recipes a run config allows, and which are measured first."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from equipoise import hardware
from equipoise.compression.export import nearest_precision, supported
from equipoise.compression.latency_table import Fitted
from equipoise.compression.structure import check_stack, student_layers
from equipoise.config import RunConfig
from equipoise.config.search import Importance, SearchConfig, Vocabulary
from equipoise.data import Layout
from equipoise.engines import is_installed
from equipoise.errors import ConfigError
from equipoise.runs import Recipe
from equipoise.search.quantized_training import PRECISION, check_trainable
from equipoise.search.shape import Shape, read_shape, resolve_channels, resolve_ffn, resolve_heads
from equipoise.search.written import written_recipe

Point = dict[str, Any]

_KINDS: dict[Layout, str] = {
    "text": "a text classifier",
    "words": "a tagger",
    "image": "an image classifier",
    "prompt": "a language model",
}


@dataclass(frozen=True)
class Structure:
    """What of the teacher is kept: the part of a recipe that is trained once and shared by its runtimes."""

    layers: tuple[int, ...]
    heads: tuple[int, ...] | None = None
    ffn: tuple[int, ...] | None = None
    importance: Importance = "taylor"
    vocabulary: Vocabulary = "full"
    target: str | None = None
    sparsity: float = 0.0
    channels: tuple[int, ...] | None = None

    @property
    def name(self) -> str:
        """Its name as a category of the sampler."""
        parts = [",".join(map(str, self.layers))]
        for name, counts in (("heads", self.heads), ("ffn", self.ffn), ("channels", self.channels)):
            parts += [f"{name} {'/'.join(map(str, counts))}"] if counts is not None else []
        parts += [self.importance] if self.importance != "taylor" else []
        parts += ["vocabulary"] if self.vocabulary != "full" else []
        parts += [f"{self.sparsity:g} zeros"] if self.sparsity else []
        return " ".join([*parts, *([self.target] if self.target else [])])

    @property
    def narrowed(self) -> bool:
        """Whether heads, neurons or channels are left out."""
        return self.heads is not None or self.ffn is not None or self.channels is not None

    @classmethod
    def of(cls, recipe: Recipe) -> Structure:
        """A recipe's structure."""
        return cls(
            recipe.layers,
            recipe.heads,
            recipe.ffn,
            recipe.importance,
            recipe.vocabulary,
            recipe.target,
            recipe.sparsity,
            recipe.channels,
        )


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
        shape: Shape | None = None,
        written: Sequence[Recipe] = (),
    ) -> None:
        """
        Args:
            shape: the teacher's widths, where heads or neurons are left out.
            written: recipes of the config, measured right after the teacher.
        """
        self.teacher_depth = teacher_depth
        self.written = tuple(written)
        found = _structures(search, shape or Shape(teacher_depth, required))
        self.structures = {structure.name: structure for structure in found}
        self.structures |= {Structure.of(recipe).name: Structure.of(recipe) for recipe in written}
        self.runtimes = _runtimes(search, layout)
        for place, recipe in enumerate(written):
            _check_runtime(recipe, layout, f"compression.recipes.{place}.quantize")
            self.runtimes[_runtime_name(recipe.engine, recipe.precision)] = (recipe.engine, recipe.precision)

    def distributions(self) -> dict[str, Any]:
        """Optuna distributions by parameter."""
        from optuna.distributions import CategoricalDistribution

        return {
            "structure": CategoricalDistribution(tuple(self.structures)),
            "runtime": CategoricalDistribution(tuple(self.runtimes)),
        }

    def recipe(self, point: Point) -> Recipe:
        """The recipe of a point."""
        structure = self.structures[point["structure"]]
        engine, precision = self.runtimes[point["runtime"]]
        return Recipe(
            depth=len(structure.layers),
            distilled=structure.narrowed
            or structure.sparsity > 0
            or structure.target is not None
            or len(structure.layers) < self.teacher_depth,
            engine=engine,
            precision=precision,
            **asdict(structure),
        )

    def point(self, recipe: Recipe) -> Point | None:
        """The point of a recipe; None where this space does not hold it."""
        point = {
            "structure": Structure.of(recipe).name,
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
        structure on the engine that is usually the fastest; recipes that the config writes down come
        right after the teacher."""
        found = [self.teacher, *self.written]
        for engine in dict.fromkeys(engine for engine, _ in self.runtimes.values()):
            point = {"structure": Structure.of(self.teacher).name, "runtime": self._least(engine)}
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


def open_space(
    config: RunConfig,
    folder: Path,
    layout: Layout,
    model_class: str,
    fitted: Mapping[int, Fitted] | None = None,
) -> Space:
    """The space of a run over the teacher, or the base model, in a folder.

    Args:
        fitted: the structures that were chosen for the recipes with a target, by their number.

    Raises:
        ConfigError: a recipe that cannot be.
        ModelError: the model's layers are not known.
    """
    search = config.search
    shares = {*search.head_shares, *search.ffn_shares, *search.channel_shares}
    pruned = bool(config.compression.recipes) or shares != {1.0}
    shape = read_shape(folder, model_class, widths=pruned)
    written = [
        written_recipe(steps, place, shape, (fitted or {}).get(place))
        for place, steps in enumerate(config.compression.recipes)
    ]
    space = Space(search, shape.depth, shape.required, layout=layout, shape=shape, written=written)
    if any(len(structure.layers) < shape.depth for structure in space.structures.values()):
        check_stack(folder, model_class)
    if any(precision == PRECISION for _, precision in space.runtimes.values()):
        named = PRECISION in (search.precisions or ())
        check_trainable(config, "search.precisions" if named else "compression.recipes")
    if config.distillation.hidden_weight and any(s.channels for s in space.structures.values()):
        raise ConfigError(
            "hidden states of fewer channels cannot be compared with the teacher's",
            where="distillation.hidden_weight",
            value=config.distillation.hidden_weight,
            remedy="set it to 0, or leave all channels in",
        )
    if config.distillation.relation_weight:
        for structure in space.structures.values():
            for count in structure.heads or ():
                _check_relations(count, shape, config.distillation.relation_heads)
    return space


def _check_relations(heads: int, shape: Shape, parts: int) -> None:
    width = heads * shape.head_size
    if width % parts:
        raise ConfigError(
            f"does not divide the width {width} of {heads} heads",
            where="distillation.relation_heads",
            value=parts,
            remedy=f"use a divisor of {shape.head_size}, or leave relations out",
        )


def _structures(search: SearchConfig, shape: Shape) -> list[Structure]:
    stacks = [tuple(range(shape.depth))]
    stacks += [
        student_layers(shape.depth, depth, choice, shape.required)
        for depth in sorted(set(search.depths), reverse=True)
        for choice in search.layers
    ]
    if "task" in search.vocabulary:
        shape.check_vocabulary("search.vocabulary")
    # Wide before narrow, and each structure that is made of the teacher's own widths before any other.
    heads = sorted({1.0, *search.head_shares}, reverse=True)
    ffn = sorted({1.0, *search.ffn_shares}, reverse=True)
    channels = sorted({1.0, *search.channel_shares}, reverse=True)
    vocabularies = dict.fromkeys(("full", *search.vocabulary))
    found = []
    for head_share, ffn_share, channel_share, vocabulary, layers in itertools.product(
        heads, ffn, channels, vocabularies, stacks
    ):
        kept_heads = resolve_heads(head_share, layers, shape, "search.head_shares")
        kept_ffn = resolve_ffn(ffn_share, layers, shape, "search.ffn_shares")
        kept_channels = resolve_channels(channel_share, shape, "search.channel_shares")
        structure = Structure(layers, kept_heads, kept_ffn, vocabulary=vocabulary, channels=kept_channels)
        found.append(replace(structure, importance=search.importance) if structure.narrowed else structure)
    return list(dict.fromkeys(found))


def _runtimes(search: SearchConfig, layout: Layout) -> dict[str, tuple[str, str]]:
    able: dict[str, Sequence[str]] = {
        engine: found for engine, found in supported(layout).items() if engine in search.engines
    }
    for engine in able:
        _check_installed(engine, "search.engines")
    for named in search.precisions or ():
        _check_native(named, list(dict.fromkeys(itertools.chain(*able.values()))), "search.precisions")
        if not any(named in found for found in able.values()):
            raise _no_engine(named, able, layout)
    found = {"torch-fp32": ("torch", "fp32")}
    for engine, precisions in able.items():
        for precision in precisions:
            # They cost minutes, or a training more, and are for where int8 itself is not good enough.
            usual = precision not in ("int8_guarded", PRECISION) and (
                precision != "fp16" or hardware.has_fp16()
            )
            if usual if search.precisions is None else precision in search.precisions:
                found[_runtime_name(engine, precision)] = (engine, precision)
    return found


def _no_engine(precision: str, able: Mapping[str, Sequence[str]], layout: Layout) -> ConfigError:
    """The fault of a precision that none of the search's engines has."""
    others = [engine for engine, found in supported(layout).items() if precision in found]
    there = dict.fromkeys(name for found in able.values() for name in found)
    near = f"use {nearest_precision(precision, list(there))}"
    return ConfigError(
        f"no engine of search.engines runs {_KINDS[layout]} in it",
        where="search.precisions",
        value=precision,
        remedy=f"{near}, or add {' or '.join(others)} to search.engines" if others else near,
    )


def _check_runtime(recipe: Recipe, layout: Layout, where: str) -> None:
    able = supported(layout)[recipe.engine]
    if recipe.precision not in able:
        raise ConfigError(
            f"{recipe.engine} does not run {_KINDS[layout]} in it",
            where=f"{where}.precision",
            value=recipe.precision,
            remedy=f"use {nearest_precision(recipe.precision, able)}; {recipe.engine} has {', '.join(able)}",
        )
    _check_native(recipe.precision, able, f"{where}.precision")
    _check_installed(recipe.engine, f"{where}.engine")


def _check_native(precision: str, able: Sequence[str], where: str) -> None:
    """Refuse fp16 where the CPU would only unpack it, and compute in fp32."""
    if precision == "fp16" and not hardware.has_fp16():
        others = [name for name in able if name != "fp16"]
        raise ConfigError(
            "this CPU does not multiply fp16 natively (AVX-512 FP16 or AMX FP16)",
            where=where,
            value=precision,
            remedy=f"use {nearest_precision(precision, others)}",
        )


def _check_installed(engine: str, where: str) -> None:
    if not is_installed(engine):
        raise ConfigError(
            "engine is not installed",
            where=where,
            value=engine,
            remedy=f"pip install {engine}, or leave it out",
        )


def _runtime_name(engine: str, precision: str) -> str:
    return f"{engine}-{precision}"
