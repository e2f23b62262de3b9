"""What a Serve config file may say; the application itself runs in the integration tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from equipoise.config.cost import CostConfig
from equipoise.config.serving import ServingConfig
from equipoise.costs.capacity import flat_capacity
from equipoise.errors import BundleError, ConfigError
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
