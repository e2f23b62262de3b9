from __future__ import annotations

from typing import Any

import pytest

from equipoise.config import validate_config
from equipoise.config.cluster import ClusterConfig
from equipoise.errors import ConfigError


@pytest.mark.parametrize(
    ("values", "where", "text"),
    [
        ({"namespace": "My Space"}, "namespace", "wrong value"),
        ({"storage": {"mount_path": "data"}}, "storage.mount_path", "wrong value"),
        ({"worker_groups": [{"gpu": 1}]}, "worker_groups.0.gpu", "unknown key"),
        ({"worker_groups": [{"spot": "spot"}]}, "worker_groups.0.spot", "wrong value"),
        (
            {"worker_groups": [{"min_workers": 3, "max_workers": 2}]},
            "worker_groups.0",
            "min_workers 3 is above",
        ),
        ({"worker_groups": [{}, {}]}, "cluster", "two worker groups have the same name"),
        ({"head": {"tolerations": [{"value": "x"}]}}, "head.tolerations.0", "needs a key"),
        (
            {"head": {"tolerations": [{"key": "a", "operator": "Exists", "value": "x"}]}},
            "head.tolerations.0",
            "takes no value",
        ),
        (
            {"queue": "team", "worker_groups": [{"max_workers": 4}]},
            "cluster",
            "set min_workers to max_workers",
        ),
        ({"redis_secret": "redis"}, "cluster", "needs redis_address"),
    ],
)
def test_a_wrong_value_is_one_line_with_its_path(values: dict[str, Any], where: str, text: str) -> None:
    with pytest.raises(ConfigError) as found:
        validate_config(ClusterConfig, values, where="cluster")
    assert where in str(found.value)
    assert text in str(found.value)
    assert "\n" not in str(found.value)


def test_the_autoscaler_is_asked_for_only_where_it_has_something_to_decide() -> None:
    fixed = ClusterConfig.model_validate({"worker_groups": [{"min_workers": 3, "max_workers": 3}]})
    scaled = ClusterConfig.model_validate({"worker_groups": [{"min_workers": 3, "max_workers": 4}]})
    assert (fixed.autoscaling, scaled.autoscaling, ClusterConfig().autoscaling) == (False, True, False)
