from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from equipoise.engines.generation import GenerationParams, Token
from equipoise.engines.torch_generation import TorchGenerationEngine, open_generation

IDS = [5, 8, 13, 21]


@pytest.fixture(scope="module")
def engine(tiny_llama: Path) -> TorchGenerationEngine:
    return open_generation(tiny_llama, "fp32")


def write(engine: TorchGenerationEngine, params: GenerationParams) -> list[Token]:
    return list(engine.write(IDS, params))


def test_kept_keys_and_values_give_what_whole_passes_give(
    engine: TorchGenerationEngine, tiny_llama: Path
) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32).eval()
    ids = list(IDS)
    for token in write(engine, GenerationParams(max_tokens=12)):
        with torch.inference_mode():
            scores = model(input_ids=torch.tensor([ids])).logits[0, -1].log_softmax(dim=-1)
        assert token.id == int(scores.argmax())
        assert token.log_likelihood == pytest.approx(float(scores.max()), abs=1e-4)
        ids.append(token.id)


def test_it_ends_at_the_length_at_a_stop_and_where_the_positions_do(engine: TorchGenerationEngine) -> None:
    whole = write(engine, GenerationParams(max_tokens=6))
    assert [token.finish for token in whole] == [None] * 5 + ["length"]
    stop = whole[3].id
    first = [token.id for token in whole].index(stop)
    stopped = write(engine, GenerationParams(max_tokens=6, stop_ids=(stop,)))
    assert stopped[-1].finish == "stop"
    assert [token.id for token in stopped] == [token.id for token in whole[: first + 1]]
    # The tiny model has 64 positions, four of which are taken.
    assert len(write(engine, GenerationParams(max_tokens=500))) == 60


def test_draws_follow_the_seed_and_the_likeliest_share(engine: TorchGenerationEngine) -> None:
    def drawn(**options: float) -> list[int]:
        seed = int(options.pop("seed", 0))
        return [t.id for t in write(engine, GenerationParams(max_tokens=20, seed=seed, **options))]

    assert drawn(temperature=2.0, seed=1) == drawn(temperature=2.0, seed=1)
    assert drawn(temperature=2.0, seed=1) != drawn(temperature=2.0, seed=2)
    likeliest = [token.id for token in write(engine, GenerationParams(max_tokens=20))]
    assert drawn(temperature=2.0, top_p=1e-6) == likeliest


def test_several_texts_are_written_at_once(engine: TorchGenerationEngine) -> None:
    async def collect(ids: list[int]) -> list[int]:
        return [token.id async for token in engine.generate(ids, GenerationParams(max_tokens=8))]

    async def both() -> list[list[int]]:
        return list(await asyncio.gather(collect(IDS), collect(IDS[::-1])))

    together = asyncio.run(both())
    assert together == [asyncio.run(collect(IDS)), asyncio.run(collect(IDS[::-1]))]
    assert together[0] != together[1]


def test_nothing_to_go_on_from_is_refused(engine: TorchGenerationEngine) -> None:
    with pytest.raises(ValueError, match="no token"):
        list(engine.write([], GenerationParams()))
