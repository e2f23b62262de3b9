"""A GGUF file as a model folder with safetensors, converted once and kept in the user's cache."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

from equipoise import storage
from equipoise.errors import ModelError

RECORD = "converted.json"
"""In a converted folder: what it was made from, and how its weights had been stored."""


def convert_gguf(file: Path) -> Path:
    """Folder with config.json, model.safetensors in fp32 and tokenizer.json, made on the first call.

    Weights that the file holds in 4 bits are multiplied out; what the quantization lost stays lost.

    Raises:
        ModelError: the file is damaged, or its architecture is unknown.
        StorageError: the disk is full.
    """
    folder = storage.user_cache("models") / f"{file.stem}-{storage.sha256_file(file)[:12]}"
    if not folder.is_dir():
        storage.write_folder(folder, lambda target: _convert(file, target))
    return folder


def describe_conversion(folder: Path) -> str | None:
    """One sentence about a folder that `convert_gguf` made; None of any other."""
    if not (folder / RECORD).is_file():
        return None
    record = storage.read_json(str(folder / RECORD))
    return f"The base model's weights were dequantized from {record['source']} ({record['stored_as']})."


def _convert(file: Path, target: Path) -> None:
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    # transformers draws its progress through the file on standard error.
    silence = contextlib.redirect_stderr(io.StringIO())
    try:
        with silence:
            stored_as = _convert_quietly(file, target)
    finally:
        if shown:
            logging.enable_progress_bar()
    record = {"source": file.name, "stored_as": stored_as}
    storage.put_json(str(target / RECORD), record)


def _convert_quietly(file: Path, target: Path) -> str:
    """Write the model and the tokenizer; returns how the weights were stored, such as `Q4_1`."""
    import torch
    from gguf import GGUFReader, LlamaFileType
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        reader = GGUFReader(file)
        stored_as = LlamaFileType(int(reader.fields["general.file_type"].parts[-1][0])).name
        model = AutoModelForCausalLM.from_pretrained(
            file.parent, gguf_file=file.name, dtype=torch.float32, local_files_only=True
        )
        tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name, local_files_only=True)
    except (ValueError, KeyError, IndexError, RuntimeError, NotImplementedError) as error:
        raise ModelError(
            f"cannot be converted from GGUF: {error}",
            where="model.teacher",
            value=str(file),
            remedy="give a folder with safetensors, or GGUF of an architecture that transformers reads",
        ) from error
    model.hf_quantizer = None
    model.is_quantized = False
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)
    return str(stored_as.removeprefix("MOSTLY_"))
