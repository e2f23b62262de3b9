from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from equipoise.engines.generation import GenerationParams, Token
from equipoise.engines.torch_writer import TorchWriter, open_writer

IDS = [5, 8, 13, 21]


@pytest.fixture(scope="module")
def writer(tiny_llama: Path) -> TorchWriter:
    return open_writer(tiny_llama, "fp32")


def write(writer: TorchWriter, params: GenerationParams) -> list[Token]:
    return list(writer.write(IDS, params))


def test_kept_keys_and_values_give_what_whole_passes_give(writer: TorchWriter, tiny_llama: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32).eval()
    ids = list(IDS)
    for token in write(writer, GenerationParams(max_tokens=12)):
        with torch.inference_mode():
            scores = model(input_ids=torch.tensor([ids])).logits[0, -1].log_softmax(dim=-1)
        assert token.id == int(scores.argmax())
        assert token.log_likelihood == pytest.approx(float(scores.max()), abs=1e-4)
        ids.append(token.id)


def test_it_ends_at_the_length_at_a_stop_and_where_the_positions_do(writer: TorchWriter) -> None:
    whole = write(writer, GenerationParams(max_tokens=6))
    assert [token.finish for token in whole] == [None] * 5 + ["length"]
    stop = whole[3].id
    first = [token.id for token in whole].index(stop)
    stopped = write(writer, GenerationParams(max_tokens=6, stop_ids=(stop,)))
    assert stopped[-1].finish == "stop"
    assert [token.id for token in stopped] == [token.id for token in whole[: first + 1]]
    # The tiny model has 64 positions, four of which are taken.
    assert len(write(writer, GenerationParams(max_tokens=500))) == 60


def test_draws_follow_the_seed_and_the_likeliest_share(writer: TorchWriter) -> None:
    def drawn(**options: float) -> list[int]:
        seed = int(options.pop("seed", 0))
        return [t.id for t in write(writer, GenerationParams(max_tokens=20, seed=seed, **options))]

    assert drawn(temperature=2.0, seed=1) == drawn(temperature=2.0, seed=1)
    assert drawn(temperature=2.0, seed=1) != drawn(temperature=2.0, seed=2)
    likeliest = [token.id for token in write(writer, GenerationParams(max_tokens=20))]
    assert drawn(temperature=2.0, top_p=1e-6) == likeliest


def test_nothing_to_go_on_from_is_refused(writer: TorchWriter) -> None:
    with pytest.raises(ValueError, match="no token"):
        list(writer.write([], GenerationParams()))
