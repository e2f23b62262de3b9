"""What the distillation of a narrowed student starts from: made once a structure, from the teacher."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise import storage
from equipoise.compression.structure import structure_key
from equipoise.config.search import Importance
from equipoise.costs.ledger_writer import LedgerWriter
from equipoise.observability import progress
from equipoise.placement import find_placement
from equipoise.runs import Recipe, RunFolder
from equipoise.search.context import VOCABULARY, TrialContext

_CHUNK_ROWS = 4096
_KEPT = "kept.json"


def starting_folder(context: TrialContext, recipe: Recipe, ledger: LedgerWriter) -> Path:
    """Folder of the model that a recipe's distillation starts from.

    It stays until the structure is trained, so that an interrupted training goes on from the same.
    """
    import ray

    folder = context.root / ".scratch" / "starts" / structure_key(recipe)
    if not folder.is_dir():
        place = find_placement(context.config.search.serving_nodes)
        with ledger.meter(
            "search",
            cores=place.training_cores,
            detail=f"prune {recipe.structure}",
            resource_id=f"{folder.name}/prune",
        ):
            build = ray.remote(**place.training_task())(build_start)
            ray.get(build.remote(context, recipe, str(folder)))
    return folder


def build_start(context: TrialContext, recipe: Recipe, target: str) -> None:
    """Write the teacher's kept layers, heads, neurons, channels and pieces as a model folder."""
    from equipoise.compression.channels import keep_channels
    from equipoise.compression.importance import most_important
    from equipoise.compression.sparsity import sparsify
    from equipoise.compression.vocabulary import trim_embeddings
    from equipoise.engines.narrowing import find_parts, keep_units
    from equipoise.training.initialization import load_initial_model, save_model
    from equipoise.training.residual_blocks import keep_blocks

    progress.tell(f"pruning to {recipe.structure}", 0, 1, force=True)
    # Scores of channels go by the teacher's own blocks, so these are left out last.
    layers = recipe.layers if recipe.channels is None else None
    model: Any = load_initial_model(str(context.teacher), context.load_task().model_class, None, layers)
    if recipe.channels is not None:
        keep_channels(
            model, recipe.channels, read_channel_scores(context, recipe.importance), _an_image(context)
        )
        keep_blocks(model, recipe.layers)
    if recipe.heads is not None or recipe.ffn is not None:
        scores = read_scores(context, recipe.importance)
        for place, (layer, parts) in enumerate(zip(recipe.layers, find_parts(model), strict=True)):
            heads = parts.heads if recipe.heads is None else recipe.heads[place]
            ffn = parts.ffn if recipe.ffn is None else recipe.ffn[place]
            keep_units(
                parts, most_important(scores.heads[layer], heads), most_important(scores.ffn[layer], ffn)
            )
    if recipe.vocabulary == "task":
        trim_embeddings(model, read_kept(context))
    if recipe.sparsity:
        sparsify(model, recipe.sparsity)
    Path(target).parent.mkdir(parents=True, exist_ok=True)
    storage.write_folder(Path(target), lambda folder: save_model(model, folder))


def read_scores(context: TrialContext, importance: Importance) -> Any:
    """The teacher's heads and neurons by importance (`importance.Scores`), computed once a run."""
    from equipoise.compression.importance import Scores, score

    run, name = RunFolder(context.folder), f"{importance}.json"
    if not run.has("importance", name):
        found = score(_teacher(context), importance, _scored_rows(context))
        run.put(found.model_dump(), "importance", name)
    return Scores.model_validate(run.read("importance", name))


def read_channel_scores(context: TrialContext, importance: Importance) -> Any:
    """The teacher's channels by importance (`channels.ChannelScores`), computed once a run."""
    from equipoise.compression.channels import ChannelScores, score_channels

    run, name = RunFolder(context.folder), f"channels-{importance}.json"
    if not run.has("importance", name):
        found = score_channels(_teacher(context), importance, _scored_rows(context), _an_image(context))
        run.put(found.model_dump(), "importance", name)
    return ChannelScores.model_validate(run.read("importance", name))


def _teacher(context: TrialContext) -> Any:
    from equipoise.training.initialization import load_initial_model

    return load_initial_model(str(context.teacher), context.load_task().model_class, None, None)


def _scored_rows(context: TrialContext) -> Any:
    """Seeded training rows, encoded (`Examples`)."""
    from equipoise.training.encoding import encode_examples

    train, rows = context.data.train, context.config.compression.importance_rows
    drawn = np.random.default_rng([context.config.seed, 7]).permutation(len(train))[:rows]
    taken = train.select(np.sort(drawn))
    return encode_examples(context.load_task(), taken.inputs, taken.labels)


def _an_image(context: TrialContext) -> NDArray[np.float32]:
    """The first training row as the model sees it, (1, channels, height, width)."""
    pixels: NDArray[np.float32] = context.load_task().encode([context.data.train.inputs[0]])["pixel_values"]
    return pixels


def read_kept(context: TrialContext) -> list[int]:
    """The teacher's ids of the pieces that the task keeps, ascending; their tokenizer is written once."""
    from tokenizers import Tokenizer

    from equipoise.compression.vocabulary import kept_ids, trim_tokenizer
    from equipoise.tasks.pieces import TOKENIZER_FILE

    folder = context.root / VOCABULARY
    if not folder.is_dir():
        task, inputs = context.load_task(), context.data.train.inputs
        parts = [inputs[start : start + _CHUNK_ROWS] for start in range(0, len(inputs), _CHUNK_ROWS)]
        used = np.unique(np.concatenate([np.unique(task.encode(part)["input_ids"]) for part in parts]))
        tokenizer = Tokenizer.from_file(str(context.teacher / TOKENIZER_FILE))
        kept = kept_ids(tokenizer, used.tolist())

        def fill(target: Path) -> None:
            trim_tokenizer(tokenizer, kept).save(str(target / TOKENIZER_FILE))
            storage.put_json(str(target / _KEPT), kept)

        storage.write_folder(folder, fill)
    return [int(place) for place in storage.read_json(str(folder / _KEPT))]
