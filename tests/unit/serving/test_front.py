"""What Serve's front is told before it starts."""

from __future__ import annotations

import pytest

from equipoise.config.serving import ServingConfig
from equipoise_serving.front import front_environment


def test_the_front_gives_up_after_the_replica_and_retries_what_is_safe() -> None:
    found = front_environment(ServingConfig(timeout_s=2.5))
    assert found["RAY_SERVE_HAPROXY_TIMEOUT_SERVER_S"] == "8"
    assert found["RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S"] == "8"
    retried = found["RAY_SERVE_HAPROXY_RETRY_ON"].split()
    assert {"conn-failure", "empty-response", "503"} <= set(retried)
    assert "500" not in retried, "a text that the model fails on would be computed four times"


def test_the_user_s_own_environment_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_SERVE_HAPROXY_RETRIES", "0")
    assert "RAY_SERVE_HAPROXY_RETRIES" not in front_environment(ServingConfig())


@pytest.mark.parametrize(("host", "is_short"), [("127.0.0.1", True), ("0.0.0.0", False)])
def test_only_a_front_on_loopback_lets_replicas_leave_at_once(host: str, is_short: bool) -> None:
    name = "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S"
    assert (name in front_environment(ServingConfig(host=host))) is is_short
