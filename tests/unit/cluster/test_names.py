from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from equipoise.cluster.names import MAX_NAME, attempt_id, attempt_of, service_name, submission_id
from equipoise.config import RunConfig
from equipoise.errors import ConfigError

DNS = re.compile(r"^[a-z]([-a-z0-9]*[a-z0-9])?$")


def test_the_same_run_has_the_same_id_wherever_it_goes(sample_run: Callable[..., RunConfig]) -> None:
    first = submission_id(sample_run())
    assert first == submission_id(sample_run(cluster={"image": "another"}, output="/elsewhere"))
    assert first.startswith("topics-")


def test_another_run_has_another_id(sample_run: Callable[..., RunConfig]) -> None:
    assert submission_id(sample_run()) != submission_id(sample_run(seed=14))


@given(
    name=st.from_regex(r"[a-z0-9][a-z0-9-]{0,62}", fullmatch=True),
    attempt=st.integers(1, 999),
)
def test_every_id_is_a_name_that_kuberay_takes(name: str, attempt: int) -> None:
    config = RunConfig.model_validate(
        {"name": name, "data": {"train": "a", "test": "b"}, "model": {"teacher": "c"}}
    )
    for part in (None, "finetune", "distill", "search"):
        found = submission_id(config, attempt, part)
        assert len(found) <= MAX_NAME
        assert DNS.match(found)
        assert attempt_of(found, submission_id(config, until=part)) == attempt


@given(name=st.from_regex(r"[a-z0-9][a-z0-9-]{0,62}", fullmatch=True))
def test_a_part_of_a_run_is_another_job_than_the_run(name: str) -> None:
    config = RunConfig.model_validate(
        {"name": name, "data": {"train": "a", "test": "b"}, "model": {"teacher": "c"}}
    )
    parts = (None, "finetune", "distill", "search")
    found = [submission_id(config, until=part) for part in parts]
    assert len(set(found)) == len(parts)
    assert len({name.rpartition("-")[2] for name in found}) == 1
    for first in found:
        assert [attempt_of(f"{other}-2", first) for other in found].count(2) == 1


def test_attempts_of_another_job_are_told_apart() -> None:
    assert attempt_id("topics-aaaa", 3) == "topics-aaaa-3"
    assert attempt_of("topics-aaaa", "topics-aaaa") == 1
    assert attempt_of("topics-bbbb-3", "topics-aaaa") is None
    assert attempt_of("topics-aaaa-1", "topics-aaaa") is None
    assert attempt_of("topics-aaaa-x", "topics-aaaa") is None


def test_a_service_is_named_after_its_model() -> None:
    assert service_name("20_News v2") == "run-20-news-v2"
    with pytest.raises(ConfigError, match="no letter or digit"):
        service_name("___")
