from __future__ import annotations

import asyncio
from contextlib import aclosing
from pathlib import Path

import pytest

from equipoise.engines.generation import GenerationParams
from equipoise.engines.torch_generation import TorchGenerationEngine, open_generation

IDS = [5, 8, 13, 21]


@pytest.fixture
def engine(tiny_llama: Path) -> TorchGenerationEngine:
    return open_generation(tiny_llama, "fp32", max_sequences=2)


async def collect(engine: TorchGenerationEngine, ids: list[int], **options: int) -> list[int]:
    params = GenerationParams(**{"max_tokens": 8, **options})
    return [token.id async for token in engine.generate(ids, params)]


def test_several_texts_are_written_at_once(engine: TorchGenerationEngine) -> None:
    async def all_of_them() -> list[list[int]]:
        return list(await asyncio.gather(*(collect(engine, [*IDS, n]) for n in range(5))))

    together = asyncio.run(all_of_them())
    assert together == [asyncio.run(collect(engine, [*IDS, n])) for n in range(5)]
    assert len({tuple(text) for text in together}) > 1


def test_closing_the_iterator_frees_the_slot(engine: TorchGenerationEngine) -> None:
    async def leave_then_write() -> list[int]:
        for _ in range(5):
            async with aclosing(engine.generate(IDS, GenerationParams(max_tokens=60))) as tokens:
                await anext(tokens)
        # A caller that is cancelled leaves no less.
        task = asyncio.create_task(collect(engine, IDS, max_tokens=60))
        await asyncio.sleep(0.01)
        task.cancel()
        written = await collect(engine, IDS)
        assert engine.waiting == 0
        return written

    assert asyncio.run(leave_then_write()) == asyncio.run(collect(engine, IDS))


def test_a_step_that_fails_fails_the_texts_in_it_and_no_later_one(
    engine: TorchGenerationEngine, tiny_llama: Path
) -> None:
    expected = asyncio.run(collect(engine, IDS))

    async def fail_then_write() -> list[int]:
        # A token that the vocabulary does not hold.
        both = await asyncio.gather(collect(engine, [10**6]), collect(engine, IDS), return_exceptions=True)
        assert isinstance(both[0], IndexError)
        return await collect(engine, IDS)

    assert asyncio.run(fail_then_write()) == expected


def test_each_step_is_observed(tiny_llama: Path) -> None:
    seen: list[tuple[int, float]] = []
    engine = open_generation(tiny_llama, "fp32", observe=lambda texts, seconds: seen.append((texts, seconds)))
    asyncio.run(collect(engine, IDS))
    assert sum(texts for texts, _ in seen) == 1
    assert len(seen) == 8
    assert all(seconds > 0 for _, seconds in seen)
