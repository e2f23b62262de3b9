"""What OpenVINO writes over pages is what torch writes alone, whatever its neighbours."""

from __future__ import annotations

import asyncio
import functools
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from equipoise.compression.export import export_model
from equipoise.config.model import ModelConfig
from equipoise.engines import open_engine
from equipoise.engines.generation import (
    GENERATION_FILE,
    GenerationParams,
    Token,
    open_generation_engine,
)
from equipoise.engines.paged_batch import PagedBatch
from equipoise.engines.paged_model import PagedModel
from equipoise.engines.sampling import log_likelihoods
from equipoise.engines.torch_writer import TorchWriter
from equipoise.errors import BundleError
from equipoise.tasks.text_generation import TextGeneration

VOCABULARY = 300
PRECISIONS = ("fp32", "bf16", "int8_weights", "int4_weights")


@pytest.fixture(scope="module")
def tiny_gpt2(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path) -> Path:
    """Folder of an untrained GPT-2 with the tiny Llama's tokenizer."""
    folder = tmp_path_factory.mktemp("tiny_gpt2")
    config = GPT2Config(
        vocab_size=VOCABULARY,
        n_positions=64,
        n_embd=32,
        n_layer=2,
        n_head=4,
        initializer_range=0.2,
        bos_token_id=None,
        eos_token_id=[0, 7],
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        GPT2LMHeadModel(config).save_pretrained(folder)
    shutil.copyfile(tiny_llama / "tokenizer.json", folder / "tokenizer.json")
    return folder


@pytest.fixture(scope="module")
def sources(tiny_llama: Path, tiny_gpt2: Path) -> dict[str, Path]:
    return {"llama": tiny_llama, "gpt2": tiny_gpt2}


@pytest.fixture(scope="module")
def export(sources: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Path]:
    @functools.cache
    def build(kind: str, precision: str) -> Path:
        source = tmp_path_factory.getbasetemp() / f"source-{kind}"
        if not source.is_dir():
            shutil.copytree(sources[kind], source)
        target = tmp_path_factory.mktemp(f"{kind}-{precision}")
        task = TextGeneration.create(source, (), ModelConfig(teacher=str(source), max_length=24))
        export_model(
            source,
            target,
            engine="openvino",
            precision=precision,
            task=task,
            calibration=[],
            onnx_cache=source / "onnx",
        )
        return target

    return build


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def alone(sources: dict[str, Path]) -> Callable[[str], TorchWriter]:
    @functools.cache
    def load(kind: str) -> TorchWriter:
        return TorchWriter(AutoModelForCausalLM.from_pretrained(sources[kind], dtype=torch.float32).eval())

    return load


@pytest.fixture(scope="module")
def paged(export: Callable[[str, str], Path]) -> Callable[..., PagedModel]:
    @functools.cache
    def load(kind: str, precision: str = "fp32", max_cached_tokens: int = 256) -> PagedModel:
        return PagedModel(export(kind, precision), precision, 1, max_cached_tokens)

    return load


def write_together(
    batch: PagedBatch, asked: list[tuple[list[int], GenerationParams, int]]
) -> list[list[Token]]:
    """Each prompt is added before the step that it names."""
    texts: list[list[Token]] = [[] for _ in asked]
    step = 0
    while not batch.is_idle or step <= max(start for _, _, start in asked):
        for text, (ids, params, start) in zip(texts, asked, strict=True):
            if start == step:
                batch.add(ids, params, text.append)
        batch.step()
        step += 1
        assert step < 2000
    return texts


def ids_of(tokens: list[Token]) -> list[int]:
    return [token.id for token in tokens]


ASKED = st.lists(
    st.tuples(
        st.lists(st.integers(1, VOCABULARY - 1), min_size=1, max_size=40),
        st.integers(1, 24),
        st.integers(0, 12),
        st.sampled_from([0.0, 1.2]),
    ),
    min_size=1,
    max_size=9,
)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(asked=ASKED, stop=st.integers(0, VOCABULARY - 1), rows=st.integers(1, 5))
def test_interleaved_texts_are_those_that_torch_writes_alone(
    kind: str,
    paged: Callable[..., PagedModel],
    alone: Callable[[str], TorchWriter],
    asked: list[tuple[list[int], int, int, float]],
    stop: int,
    rows: int,
) -> None:
    whole = [
        (ids, GenerationParams(room, temperature, 0.9, (stop,), seed=number), start)
        for number, (ids, room, start, temperature) in enumerate(asked)
    ]
    batch = PagedBatch(paged(kind), max_sequences=rows, prefill_tokens=7)
    together = write_together(batch, whole)
    assert batch.free_pages == 8
    for tokens, (ids, params, _) in zip(together, whole, strict=True):
        expected = list(alone(kind).write(ids, params))
        pairs = enumerate(zip(ids_of(tokens), ids_of(expected), strict=False))
        parted = next((place for place, (one, other) in pairs if one != other), None)
        if parted is None:
            assert [token.finish for token in tokens] == [token.finish for token in expected]
        else:
            # Tokens as likely as each other, to the engines' last digits, may change places in a draw.
            assert params.temperature > 0
            tokens, expected = tokens[: parted + 1], expected[: parted + 1]
        assert [t.log_likelihood for t in tokens] == pytest.approx(
            [t.log_likelihood for t in expected], abs=1e-3
        )
        assert all(token.busy_s > 0 for token in tokens)


def test_greedy_texts_are_those_of_transformers_own_generate(
    kind: str, paged: Callable[..., PagedModel], alone: Callable[[str], TorchWriter]
) -> None:
    draw = random.Random(3)  # noqa: S311
    prompts = [[draw.randrange(1, VOCABULARY) for _ in range(count)] for count in (1, 4, 9, 31, 33)]
    batch = PagedBatch(paged(kind), max_sequences=4, prefill_tokens=5)
    params = GenerationParams(max_tokens=30)
    together = write_together(batch, [(ids, params, place) for place, ids in enumerate(prompts)])
    for ids, tokens in zip(prompts, together, strict=True):
        expected = alone(kind).model.generate(
            torch.tensor([ids]), max_new_tokens=30, do_sample=False, eos_token_id=None, pad_token_id=0
        )
        assert ids_of(tokens) == expected[0, len(ids) :].tolist()


@pytest.mark.parametrize("precision", PRECISIONS)
def test_what_is_written_has_the_likelihoods_that_scoring_gives_it(
    kind: str, precision: str, export: Callable[[str, str], Path], paged: Callable[..., PagedModel]
) -> None:
    batch = PagedBatch(paged(kind, precision), max_sequences=3, prefill_tokens=5)
    prompts = [[5, 8, 13], [21] * 9, [3]]
    texts = write_together(
        batch, [(ids, GenerationParams(max_tokens=20), 2 * n) for n, ids in enumerate(prompts)]
    )
    scorer = open_engine("openvino", export(kind, precision), precision)
    near = 0.1 if precision == "bf16" else 2e-3
    for ids, tokens in zip(prompts, texts, strict=True):
        whole = np.array([ids + ids_of(tokens)])
        scores = log_likelihoods(scorer.run({"input_ids": whole})["logits"])[0, len(ids) - 1 : -1]
        found = scores[np.arange(len(tokens)), ids_of(tokens)]
        np.testing.assert_allclose([t.log_likelihood for t in tokens], found, atol=near)
        # Each is the likeliest by the scores too.
        assert (found >= scores.max(axis=1) - near).all()


def test_pages_bound_what_is_under_way(paged: Callable[..., PagedModel]) -> None:
    # 60 tokens take two pages of the eight.
    batch = PagedBatch(paged("llama"), max_sequences=32)
    texts: list[list[Token]] = [[] for _ in range(6)]
    for number, text in enumerate(texts):
        batch.add([number + 1] * 10, GenerationParams(max_tokens=50), text.append)
    batch.step()
    assert (batch.waiting, batch.free_pages) == (2, 0)
    while not batch.is_idle:
        batch.step()
    assert [len(text) for text in texts] == [50] * 6
    assert batch.free_pages == 8


def test_a_prompt_without_tokens_or_room_is_refused(paged: Callable[..., PagedModel]) -> None:
    batch = PagedBatch(paged("llama"), max_sequences=2)
    assert batch.max_length == 64
    with pytest.raises(ValueError, match="no token to go on from"):
        batch.add([], GenerationParams(), lambda token: None)
    with pytest.raises(ValueError, match="64 tokens leave no room for another: at most 64 fit"):
        batch.add([1] * 64, GenerationParams(), lambda token: None)


def test_the_engine_serves_many_callers_and_frees_those_that_leave(
    export: Callable[[str, str], Path], alone: Callable[[str], TorchWriter]
) -> None:
    seen: list[tuple[int, float]] = []
    engine = open_generation_engine(
        "openvino",
        export("gpt2", "fp32"),
        "fp32",
        max_sequences=2,
        max_cached_tokens=128,
        observe=lambda texts, seconds: seen.append((texts, seconds)),
    )
    assert engine.stop_ids(3) == (0, 3, 7)
    params = GenerationParams(max_tokens=8)

    async def collect(ids: list[int]) -> list[int]:
        return [token.id async for token in engine.generate(ids, params)]

    async def leave_then_write() -> list[list[int]]:
        async with aclosing(engine.generate([9], GenerationParams(max_tokens=60))) as tokens:
            await anext(tokens)
        return list(await asyncio.gather(*(collect([5, 8, n + 1]) for n in range(5))))

    together = asyncio.run(leave_then_write())
    expected = [ids_of(list(alone("gpt2").write([5, 8, n + 1], params))) for n in range(5)]
    assert together == expected
    assert sum(texts for texts, _ in seen) == 5


def test_a_step_that_fails_fails_the_texts_in_it_and_no_later_one(
    export: Callable[[str, str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine: Any = open_generation_engine("openvino", export("llama", "fp32"), "fp32", max_cached_tokens=128)

    async def collect(ids: list[int]) -> list[int]:
        return [token.id async for token in engine.generate(ids, GenerationParams(max_tokens=8))]

    expected = asyncio.run(collect([5, 8]))
    forward = engine._batch._model.forward

    def fail(parts: Any) -> Any:
        monkeypatch.setattr(engine._batch._model, "forward", forward)
        raise RuntimeError("no memory")

    async def fail_then_write() -> list[int]:
        monkeypatch.setattr(engine._batch._model, "forward", fail)
        both = await asyncio.gather(collect([5, 8]), collect([7]), return_exceptions=True)
        assert [str(found) for found in both] == ["no memory"] * 2
        return await collect([5, 8])

    assert asyncio.run(fail_then_write()) == expected
    assert engine._batch.free_pages == 4


def test_a_damaged_model_is_one_line(export: Callable[[str, str], Path], tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(export("llama", "fp32"), folder)
    (folder / "model.xml").write_text("no model")
    with pytest.raises(BundleError, match="openvino cannot load the model"):
        open_generation_engine("openvino", folder, "fp32")
    (folder / GENERATION_FILE).unlink()
    with pytest.raises(BundleError, match="openvino cannot load the model"):
        open_generation_engine("openvino", folder, "fp32")


def test_it_writes_without_torch(export: Callable[[str, str], Path]) -> None:
    program = (
        "import sys; from pathlib import Path\n"
        "from equipoise.engines.generation import GenerationParams, open_generation_engine\n"
        "import equipoise.tasks.text_generation, asyncio\n"
        f"engine = open_generation_engine('openvino', Path({str(export('llama', 'fp32'))!r}), 'fp32')\n"
        "params = GenerationParams(max_tokens=4)\n"
        "async def write(): return [token.id async for token in engine.generate([5], params)]\n"
        "assert len(asyncio.run(write())) == 4\n"
        "assert not {'torch', 'transformers'} & set(sys.modules), 'loaded'\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=240)
