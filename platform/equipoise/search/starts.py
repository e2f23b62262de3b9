"""What the distillation of a narrowed student starts from: made once a structure, from the teacher."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

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
    """Write the teacher's kept layers, heads, neurons and pieces as a model folder."""
    from equipoise.compression.importance import most_important
    from equipoise.compression.sparsity import sparsify
    from equipoise.compression.vocabulary import trim_embeddings
    from equipoise.engines.narrowing import find_parts, keep_units
    from equipoise.training.initialization import load_initial_model, save_model

    progress.tell(f"pruning to {recipe.structure}", 0, 1, force=True)
    model: Any = load_initial_model(
        str(context.teacher), context.load_task().model_class, None, recipe.layers
    )
    if recipe.narrowed:
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
    from equipoise.training.encoding import encode_examples
    from equipoise.training.initialization import load_initial_model

    run, name = RunFolder(context.folder), f"{importance}.json"
    if not run.has("importance", name):
        task, seed = context.load_task(), context.config.seed
        rows = context.config.compression.importance_rows
        model = load_initial_model(str(context.teacher), task.model_class, None, None)
        drawn = np.random.default_rng([seed, 7]).permutation(len(context.data.train))[:rows]
        taken = context.data.train.select(np.sort(drawn))
        found = score(model, importance, encode_examples(task, taken.inputs, taken.labels))
        run.put(found.model_dump(), "importance", name)
    return Scores.model_validate(run.read("importance", name))


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
