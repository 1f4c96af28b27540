"""garbage-collect as it is called: what it deletes, and what it says it could not."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from garbage_collect import handler
from garbage_collect.sdk import messages
from garbage_collect.sdk.secrets import Keys
from tests.unit.test_garbage import CLOUD, REQUEST

from .fakes import Event, FakeGateway

KEYS = Keys("payload-secret", (b"payload",))


def deployed(name: str, repo_id: int = 7) -> dict[str, Any]:
    labels = {f"{CLOUD}git-cloud": "1", f"{CLOUD}git-scm": "github", f"{CLOUD}git-repo-id": str(repo_id)}
    return {"service": name, "image": "i", "labels": labels}


def collect(gateway: FakeGateway, *functions: dict[str, Any]) -> tuple[int, Mapping[str, Any]]:
    gateway.functions = {rows["service"]: rows for rows in functions}
    body = messages.seal("garbage-collect", REQUEST)
    answer = handler.handle(Event(body, messages.headers(body, KEYS)), None)
    return answer["statusCode"], json.loads(answer["body"])


def test_it_answers_with_the_names_it_deleted(gateway: FakeGateway) -> None:
    status, answer = collect(gateway, deployed("alice-keep"), deployed("alice-gone"), deployed("bob-x", 8))
    assert (status, answer) == (200, {"removed": ["alice-gone"]})
    assert set(gateway.functions) == {"alice-keep", "bob-x"}


def test_nothing_to_delete_is_fine(gateway: FakeGateway) -> None:
    assert collect(gateway, deployed("alice-keep")) == (200, {"removed": []})


def test_what_could_not_be_deleted_is_named_and_is_no_success(gateway: FakeGateway) -> None:
    """Flaw 13: failed deletes counted as done."""

    def refuse(method: str, path: str, body: bytes) -> tuple[int, bytes] | None:
        return (500, b"no\n") if method == "DELETE" and b"alice-b" in body else None

    gateway.overrides.append(refuse)
    status, answer = collect(gateway, deployed("alice-a"), deployed("alice-b"), deployed("alice-c"))
    assert status == 502
    assert "alice-b" in answer["error"]["message"]
    assert answer["error"]["removed"] == ["alice-a", "alice-c"]
    assert set(gateway.functions) == {"alice-b"}


def test_a_function_that_changed_hands_meanwhile_stays(gateway: FakeGateway) -> None:
    def take_over(method: str, path: str, body: bytes) -> None:
        if path == "/system/function/alice-gone":
            gateway.functions["alice-gone"] = deployed("alice-gone", 8)

    gateway.overrides.append(take_over)
    assert collect(gateway, deployed("alice-gone")) == (200, {"removed": []})
    assert "alice-gone" in gateway.functions


def test_a_list_that_cannot_be_had_deletes_nothing(gateway: FakeGateway) -> None:
    gateway.overrides.append(lambda method, path, body: (500, b"") if path == "/system/functions" else None)
    status, _ = collect(gateway, deployed("alice-gone"))
    assert status in (502, 503)
    assert set(gateway.functions) == {"alice-gone"}
