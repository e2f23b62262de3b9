"""A pretrained model's weights, read into the model that they start: all but its head must be there."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from equipoise.engines.architectures import find_class, read_config
from equipoise.engines.widths import STRUCTURE_FILE
from equipoise.errors import ModelError
from equipoise.training.weight_files import INDEX_FILE, WEIGHTS_FILE, weight_files


def load_weights(folder: Path, model_class: str, labels: int | None) -> Any:
    """The model in fp32.

    A head of another size than `labels` is left behind for a new one.

    Args:
        model_class: the class of transformers that loads it, such as AutoModelForSequenceClassification.
        labels: size of the classification head; None keeps the one that is there.

    Raises:
        ModelError: weights beside the head are missing, or do not fit the config.
    """
    import torch

    kind = find_class(model_class)
    with _quiet_loading():
        model, report = kind.from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=True,
            dtype=torch.float32,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            **_head_options(labels),
        )
    _check_report(folder, model, report, labels)
    return model


def check_weights(folder: Path, model_class: str, labels: int | None) -> None:
    """Refuse what `load_weights` would refuse, by names and sizes alone: no weight is read.

    Raises:
        ModelError: weights beside the head are missing or do not fit the config; they cannot be read; or the
            model is not one of that class.
    """
    if labels is None and (folder / STRUCTURE_FILE).is_file():
        return  # The record of its widths is checked where it is loaded.
    import torch
    from safetensors import SafetensorError, safe_open

    try:
        with _quiet_loading(), torch.device("meta"):
            config = read_config(folder, **_head_options(labels))
            concrete: Any = type(find_class(model_class).from_config(config))
    except ValueError as error:
        raise ModelError(
            f"transformers knows it as no {model_class}", where="model.teacher", value=str(folder)
        ) from error
    state: dict[str, Any] = {}
    for weights in weight_files(folder):
        try:
            with torch.device("meta"), safe_open(weights, "pt") as file:
                names = file.keys()
                state |= {name: torch.empty(file.get_slice(name).get_shape()) for name in names}
        except (SafetensorError, OSError) as error:
            raise ModelError(f"cannot be read: {error}", where="model.teacher", value=str(weights)) from error
    with _quiet_loading():
        model, report = concrete.from_pretrained(
            None,
            config=config,
            state_dict=state,
            device_map={"": "meta"},
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    _check_report(folder, model, report, labels)


def _head_options(labels: int | None) -> dict[str, Any]:
    return {} if labels is None else {"num_labels": labels}


def _check_report(folder: Path, model: Any, report: dict[str, Any], labels: int | None) -> None:
    """Raise unless all that was not read from the weights belongs to a new head."""
    stored = WEIGHTS_FILE if (folder / WEIGHTS_FILE).is_file() else f"the shards of {INDEX_FILE}"
    sizes = {name: (tuple(found), tuple(wanted)) for name, found, wanted in report["mismatched_keys"]}
    unfit = sorted(name for name in sizes if labels is None or not _is_head(model, name))
    if unfit:
        found, wanted = (" x ".join(map(str, size)) for size in sizes[unfit[0]])
        raise ModelError(
            f"{unfit[0]} is {found} in {stored} and {wanted} by config.json",
            where="model.teacher",
            value=str(folder),
            remedy="give a folder whose config.json and weights are of one model",
        )
    missing = sorted(name for name in report["missing_keys"] if not _starts_new(model, name))
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ModelError(
            f"no {missing[0]}{more} in {stored}",
            where="model.teacher",
            value=str(folder),
            remedy="give a folder whose config.json and weights are of one model",
        )


def _is_head(model: Any, name: str) -> bool:
    """Whether a parameter lies outside of the model's body."""
    return model.base_model is not model and not name.startswith(f"{model.base_model_prefix}.")


def _starts_new(model: Any, name: str) -> bool:
    # A pooler belongs to the head that reads it: who was trained to fill in words has none.
    counts_batches = name.endswith(".num_batches_tracked")
    return counts_batches or _is_head(model, name) or name.startswith(f"{model.base_model_prefix}.pooler.")


@contextmanager
def _quiet_loading() -> Iterator[None]:
    """Without the progress and the warnings that transformers writes to standard error; errors stay."""
    from transformers.utils import logging as bars

    shown = bars.is_progress_bar_enabled()
    logger = logging.getLogger("transformers")
    level = logger.level
    bars.disable_progress_bar()
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
        if shown:
            bars.enable_progress_bar()
