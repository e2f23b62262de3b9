"""What the tests put into a server is taken out again, and nothing else."""

from __future__ import annotations

import time
from types import ModuleType
from typing import Any

Manifest = dict[str, Any]


def test_what_was_not_there_before_goes_and_the_rest_stays(
    bare_server: Any, contents: ModuleType, definitions: list[Manifest]
) -> None:
    from kubernetes import client

    found = contents.client_of(bare_server.kubeconfig)
    extensions, core = client.ApiextensionsV1Api(found), client.CoreV1Api(found)

    def kinds() -> set[str]:
        return {each.metadata.name for each in extensions.list_custom_resource_definition().items}

    there, *added = [definition["metadata"]["name"] for definition in definitions]
    assert contents.install(found, definitions[:1]) == [there]
    assert contents.install(found, definitions) == added
    assert contents.add_node(found) is True
    assert contents.add_node(found) is False
    contents.take_out(found, added, node=True)
    deadline = time.monotonic() + 30
    while kinds() != {there}:
        assert time.monotonic() < deadline, kinds()
        time.sleep(0.2)
    assert core.list_node().items == []
