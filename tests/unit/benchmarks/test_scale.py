from __future__ import annotations

import pytest
from benchmarks.scale import FEW, MANY, measure, measure_apart, metrics_page, render_models
from prometheus_client.parser import text_string_to_metric_families


def test_the_page_holds_every_replica_as_ray_would_show_it() -> None:
    families = text_string_to_metric_families(metrics_page(3, replicas=2))
    samples = [sample for family in families for sample in family.samples]
    requests = [sample for sample in samples if sample.name == "ray_equipoise_requests_total"]
    assert len(requests) == 3 * 2 * 3
    assert len({sample.labels["WorkerId"] for sample in requests}) == 3 * 2
    assert {sample.labels["model"] for sample in requests} == {"model-0000", "model-0001", "model-0002"}


@pytest.mark.parametrize("what", ["render", "meter", "ledger"])
def test_a_measurement_is_of_as_many_models_as_were_asked_for(what: str) -> None:
    found = measure_apart(what, FEW)
    assert found["models"] == FEW
    assert found["cpu_s"] > 0
    assert 10 < found["peak_mib"] < 1024


def test_few_models_are_measured_over_as_much_work_as_many(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def counting(models: int) -> object:
        return lambda: calls.append(models)

    # What is measured is not the point here, how often is.
    monkeypatch.setattr("benchmarks.scale.render_models", counting)
    measure("render", FEW)
    assert len(calls) == MANY // FEW + 1


def test_rendering_names_every_model() -> None:
    render_models(2)()
