from __future__ import annotations

import pytest

from equipoise.runs import TOKEN_LIKELIHOOD, Figure, Quality, Recipe


def quality(name: str, value: float, low: float, high: float) -> Quality:
    error = Figure(value=0.1, low=0.05, high=0.2, n=9)
    return Quality(
        metric_name=name, metric=Figure(value=value, low=low, high=high, n=9), calibration_error=error
    )


def test_perplexity_is_one_over_the_likelihood_with_its_interval_turned() -> None:
    found = quality(TOKEN_LIKELIHOOD, 0.05, 0.04, 0.08).perplexity
    assert found is not None
    assert (found.value, found.low, found.high) == pytest.approx((20, 12.5, 25))
    assert found.n == 9


@pytest.mark.parametrize(("name", "low"), [("accuracy", 0.5), (TOKEN_LIKELIHOOD, 0.0)])
def test_other_metrics_and_a_likelihood_of_nothing_have_none(name: str, low: float) -> None:
    assert quality(name, 0.9, low, 1.0).perplexity is None


RECIPE = Recipe(depth=2, layers=(0, 5), distilled=True, engine="openvino", precision="int8")
PRUNED = RECIPE.model_copy(update={"heads": (6, 4), "ffn": (768, 768), "vocabulary": "task"})


def test_a_recipe_of_an_earlier_version_is_read_as_one_that_narrows_nothing() -> None:
    stored = '{"depth":2,"layers":[0,5],"distilled":true,"engine":"openvino","precision":"int8"}'
    assert Recipe.model_validate_json(stored) == RECIPE
    assert not RECIPE.narrowed
    assert RECIPE.structure == "2 layers (0,5)"


def test_the_name_of_a_pruned_structure_says_what_is_left() -> None:
    assert PRUNED.structure == "2 layers (0,5), heads 6/4, FFN 768, task vocabulary"
    by_norm = PRUNED.model_copy(update={"importance": "magnitude"})
    assert "by magnitude" in by_norm.structure


def test_only_the_teachers_own_weights_and_words_are_untouched() -> None:
    assert not RECIPE.untouched
    whole = RECIPE.model_copy(update={"distilled": False})
    assert whole.untouched
    assert not whole.model_copy(update={"vocabulary": "task"}).untouched


def test_a_recipe_is_a_list_of_steps() -> None:
    assert PRUNED.steps == [
        {
            "prune": {
                "layers": [0, 5],
                "heads": [6, 4],
                "ffn": [768, 768],
                "importance": "taylor",
                "vocabulary": "task",
            }
        },
        {"distil": {}},
        {"quantize": {"engine": "openvino", "precision": "int8"}},
    ]
    assert [next(iter(step)) for step in RECIPE.steps] == ["prune", "distil", "quantize"]
