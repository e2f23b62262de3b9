from __future__ import annotations

from typing import Any

import pytest

from equipoise.cluster.reasons import newest_warning, pod_reasons

Manifest = dict[str, Any]


def pod(*statuses: Manifest, phase: str = "Pending", **status: Any) -> Manifest:
    return {
        "metadata": {"name": "p"},
        "status": {"phase": phase, "containerStatuses": list(statuses), **status},
    }


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        (pod({"ready": True}, phase="Running"), None),
        (pod({"state": {"terminated": {"exitCode": 0}}}, phase="Succeeded"), None),
        (pod({"state": {"waiting": {"reason": "ContainerCreating"}}}), None),
        (
            pod(
                {"state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}}}, phase="Running"
            ),
            "pod p: CrashLoopBackOff: back-off",
        ),
        (
            pod({"state": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}}, phase="Failed"),
            "pod p: OOMKilled, exit code 137",
        ),
        (
            pod(
                initContainerStatuses=[
                    {"state": {"waiting": {"reason": "ErrImagePull", "message": "denied"}}}
                ]
            ),
            "pod p: ErrImagePull: denied",
        ),
    ],
)
def test_each_state_of_a_container_is_explained(found: Manifest, sentence: str | None) -> None:
    assert pod_reasons([found], []) == ([sentence] if sentence else [])


def test_the_newest_warning_counts_whichever_field_holds_its_time() -> None:
    def event(message: str, **time: Any) -> Manifest:
        return {"type": "Warning", "reason": "R", "message": message, "involvedObject": {"name": "p"}, **time}

    events = [
        event("old", lastTimestamp="2026-01-01T00:00:00Z"),
        event("new", eventTime="2026-01-01T00:00:02.000000Z", lastTimestamp=None),
        event("middle", metadata={"creationTimestamp": "2026-01-01T00:00:01Z"}),
        {**event("normal", lastTimestamp="2026-01-01T00:00:09Z"), "type": "Normal"},
        {**event("other", lastTimestamp="2026-01-01T00:00:09Z"), "involvedObject": {"name": "q"}},
    ]
    assert newest_warning(events, {"p"}) == "R: new"
    assert pod_reasons([pod()], events) == ["pod p: R: new"]


def test_a_sentence_stays_one_line_of_bounded_length() -> None:
    message = "0/900 nodes are available:\n" + "x" * 5000
    [sentence] = pod_reasons([pod({"state": {"waiting": {"reason": "W", "message": message}}})], [])
    assert "\n" not in sentence
    assert len(sentence) <= 300
