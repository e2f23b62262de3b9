"""What of Ray's metrics page is shown."""

from __future__ import annotations

import asyncio

import pytest

from equipoise_serving.errors import RequestError
from equipoise_serving.node_metrics import NodeMetrics, own_metrics

PAGE = """# HELP ray_equipoise_requests_total Inference requests, by HTTP status.
# TYPE ray_equipoise_requests_total counter
ray_equipoise_requests_total{model="tiny",status="200"} 3.0
# HELP ray_node_cpu CPU of ray_equipoise_things
# TYPE ray_node_cpu gauge
ray_node_cpu{ip="10.0.0.1"} 5.0
"""


def test_only_our_own_metrics_are_shown_under_the_names_of_the_exporter() -> None:
    assert own_metrics(PAGE) == (
        "# HELP equipoise_requests_total Inference requests, by HTTP status.\n"
        "# TYPE equipoise_requests_total counter\n"
        'equipoise_requests_total{model="tiny",status="200"} 3.0\n'
    )


def test_a_page_that_does_not_answer_is_a_503() -> None:
    with pytest.raises(RequestError) as refused:
        asyncio.run(NodeMetrics("http://127.0.0.1:9/metrics").read())
    assert (refused.value.status, refused.value.code) == (503, "metrics_unavailable")
