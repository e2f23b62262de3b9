"""What a Serve config file may say; the application itself runs in the integration tests."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from equipoise.bundle import write_bundle
from equipoise.config.cost import CostConfig
from equipoise.config.serving import ServingConfig
from equipoise.costs.capacity import flat_capacity
from equipoise.errors import BundleError, ConfigError, RunFolderError
from equipoise.runs import RunFolder
from equipoise_serving.app import build, build_app, measured_capacity


def test_a_wrong_key_is_named_with_its_path() -> None:
    with pytest.raises(ConfigError) as caught:
        build({"serving": {"replica": 2}})
    assert str(caught.value) == "args: serving.replica: unknown key (got 2); did you mean 'replicas'?"


def test_a_location_without_a_bundle_is_refused_before_any_replica_starts(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="neither a bundle nor a run folder"):
        build({"bundle": str(tmp_path)})


def deployed(serving: ServingConfig, **options: Any) -> Any:
    """The deployment's config as Serve's controller gets it: through its own wire format."""
    from ray.serve._private.config import DeploymentConfig

    app = build_app("/bundle", serving, model_name="tiny", **options)
    held = app._bound_deployment._deployment_config
    return DeploymentConfig.from_proto_bytes(held.to_proto_bytes())


def test_a_fixed_number_of_replicas_is_not_scaled() -> None:
    config = deployed(ServingConfig(replicas=3))
    assert config.num_replicas == 3
    assert config.autoscaling_config is None
    assert config.max_surge_percent == 100


# Serve deprecates the field in favour of variables that it does not read yet.
@pytest.mark.filterwarnings("ignore:The `metrics_interval_s` field:DeprecationWarning")
def test_the_load_curve_and_the_cap_reach_the_policy_in_the_controller() -> None:
    serving = ServingConfig(replicas=2, max_replicas=9, max_usd_per_hour=0.2, cores_per_replica=2)
    config = deployed(serving, usd_per_core_second=0.05 / 3600 / 2, capacity=flat_capacity(100.0))
    scaling = config.autoscaling_config
    assert (scaling.min_replicas, scaling.max_replicas) == (2, 9)
    policy = scaling.policy.get_policy()(**scaling.policy.policy_kwargs)
    decision = policy.decide(0, rps=900.0, waiting=1, target=2, least=2, most=9)
    assert (decision.replicas, decision.reason) == (4, "cap"), "four replicas cost $0.20 an hour"


def test_replicas_without_a_load_curve_are_not_scaled() -> None:
    assert measured_capacity({}, CostConfig()) is None
    with pytest.raises(ConfigError, match=r"serving.max_replicas: .* no measured speed \(got 9\)"):
        build_app("/bundle", ServingConfig(max_replicas=9), model_name="tiny")


@pytest.fixture
def finished(tmp_path: Path, tiny_task: Any, tiny_classifier: Path, run_config: Any) -> Path:
    """A run folder with a bundle."""
    run = tmp_path / "run"
    RunFolder(run).put(run_config(cost={"spot": True}).model_dump(mode="json"), "config.json")
    options: dict[str, Any] = {"name": "tiny", "task": tiny_task, "engine": "torch", "precision": "fp32"}
    write_bundle(run / "bundle", model_folder=tiny_classifier, candidate={}, **options)
    return run


def metered_in(args: dict[str, Any]) -> Any:
    """The ledger that replicas of such an application are handed."""
    return build(args)._bound_deployment.init_args[-1]


def test_replicas_of_a_runs_bundle_are_metered_in_the_run(finished: Path, tmp_path: Path) -> None:
    for bundle in (finished, finished / "bundle"):
        ledger = metered_in({"bundle": str(bundle)})
        assert (ledger.run_location, ledger.node) == (str(finished), "aws/c7i.large")
        assert ledger.usd_per_hour == pytest.approx(0.0363, rel=0.5)
    assert metered_in({"bundle": str(finished), "run": ""}) is None
    copied = tmp_path / "copied"
    shutil.copytree(finished / "bundle", copied)
    assert metered_in({"bundle": str(copied)}) is None
    assert metered_in({"bundle": str(copied), "run": str(finished)}).run_location == str(finished)
    with pytest.raises(RunFolderError, match="is no run folder"):
        build({"bundle": str(copied), "run": str(tmp_path / "none")})


def test_a_cap_in_dollars_needs_prices(finished: Path) -> None:
    with pytest.raises(ConfigError, match=r"serving.max_usd_per_hour: there is no price"):
        build({"bundle": str(finished), "run": "", "serving": {"max_usd_per_hour": 1.0}})
