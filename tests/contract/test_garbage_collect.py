"""garbage-collect as it is called: what it deletes, and what it says it could not."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from garbage_collect import handler
from garbage_collect.sdk import messages, records
from garbage_collect.sdk.messages import Asked, Inventory
from garbage_collect.sdk.secrets import Keys
from tests.unit.test_garbage import CLOUD, REQUEST

from .fakes import Event, FakeGateway

KEYS = Keys("payload-secret", (b"payload",))


def deployed(name: str, repo_id: int = 7, **labels: Any) -> dict[str, Any]:
    given: dict[str, str] = {"git_cloud": "1", "git_scm": "github", "git_repo_id": str(repo_id), **labels}
    return {
        "service": name,
        "image": "i",
        "labels": {CLOUD + key.replace("_", "-"): text for key, text in given.items()},
    }


KEPT = deployed("alice-keep"), deployed("alice-also")


def collect(gateway: FakeGateway, *functions: dict[str, Any], **change: Any) -> tuple[int, Mapping[str, Any]]:
    gateway.functions = {rows["service"]: rows for rows in (*KEPT, *functions)}
    return send(replace(REQUEST, **change))


def send(message: object) -> tuple[int, Mapping[str, Any]]:
    body = messages.seal("garbage-collect", message)
    answer = handler.handle(Event(body, messages.headers(body, KEYS)), None)
    return answer["statusCode"], json.loads(answer["body"])


def rest(gateway: FakeGateway) -> set[str]:
    """What is there besides what the request keeps."""
    return set(gateway.functions) - {"alice-keep", "alice-also"}


def test_it_answers_with_the_names_it_deleted(gateway: FakeGateway) -> None:
    status, answer = collect(gateway, deployed("alice-gone"), deployed("bob-x", 8))
    assert (status, answer) == (200, {"removed": ["alice-gone"]})
    assert set(gateway.functions) == {"alice-keep", "alice-also", "bob-x"}


def test_nothing_to_delete_is_fine(gateway: FakeGateway) -> None:
    assert collect(gateway) == (200, {"removed": []})


def test_what_could_not_be_deleted_is_named_and_is_no_success(gateway: FakeGateway) -> None:
    """Flaw 13: failed deletes counted as done."""

    def refuse(method: str, path: str, body: bytes) -> tuple[int, bytes] | None:
        return (500, b"no\n") if method == "DELETE" and b"alice-b" in body else None

    gateway.overrides.append(refuse)
    status, answer = collect(gateway, deployed("alice-a"), deployed("alice-b"), deployed("alice-c"))
    assert status == 502
    assert "alice-b" in answer["error"]["message"]
    assert answer["error"]["removed"] == ["alice-a", "alice-c"]
    assert rest(gateway) == {"alice-b"}


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
    assert rest(gateway) == {"alice-gone"}


@pytest.mark.parametrize("body", [b"", b"{}", b"null", b"[", b"<html>", b'[{"name": 5}]'])
def test_a_list_that_cannot_be_read_deletes_nothing(body: bytes, gateway: FakeGateway) -> None:
    gateway.overrides.append(lambda method, path, _: (200, body) if path == "/system/functions" else None)
    status, _ = collect(gateway, deployed("alice-gone"))
    assert status == 502
    assert not gateway.made("DELETE", "/")


@pytest.mark.parametrize("status", [401, 403, 404, 500, 503])
def test_whatever_status_but_200_deletes_nothing(status: int, gateway: FakeGateway) -> None:
    gateway.overrides.append(lambda method, path, _: (status, b"") if path == "/system/functions" else None)
    assert collect(gateway, deployed("alice-gone"))[0] >= 400
    assert not gateway.made("DELETE", "/")


@pytest.mark.parametrize(
    "change",
    [
        {"functions": ()},
        {"functions": (), "uninstall": True},
        {"functions": (), "reason": "uninstall"},
        {"uninstall": True, "reason": "uninstall"},
        {"functions": (), "uninstall": True, "reason": "uninstall", "repo_id": 0},
    ],
    ids=["a push", "for a push", "only so called", "that keeps some", "of no repository"],
)
def test_nothing_to_keep_is_refused_but_for_an_uninstall(
    change: dict[str, Any], gateway: FakeGateway
) -> None:
    status, answer = collect(gateway, deployed("alice-gone"), **change)
    assert (status, answer["error"]["code"]) == (403, "refused")
    assert "nothing is deleted" in answer["error"]["message"]
    assert not gateway.made("DELETE", "/")


UNINSTALL: dict[str, Any] = {"functions": (), "uninstall": True, "reason": "uninstall"}


def test_an_uninstall_removes_all_of_the_repository_and_nothing_else(gateway: FakeGateway) -> None:
    others = (
        deployed("alice-x", 8),
        deployed("bob-x", 7, git_scm="gitlab"),
        deployed("carol-x", 7, git_cloud="0"),
    )
    status, answer = collect(gateway, *others, **UNINSTALL)
    assert (status, answer) == (200, {"removed": ["alice-also", "alice-keep"]})
    assert rest(gateway) == {"alice-x", "bob-x", "carol-x"}


def test_what_stays_must_be_live_before_anything_goes(gateway: FakeGateway) -> None:
    """A list that a newer push has overtaken, or another owner's name, names what is not there."""
    for change in ({"functions": ("keep", "renamed")}, {"owner": "bob"}):
        status, answer = collect(gateway, deployed("alice-gone"), **change)
        assert (status, answer["error"]["code"]) == (503, "unavailable")
        assert not gateway.made("DELETE", "/")


def many(number: int) -> list[dict[str, Any]]:
    return [deployed(f"alice-f{index:02}") for index in range(number)]


def test_a_mass_deletion_is_refused_as_a_whole_and_says_how_to_allow_it(
    gateway: FakeGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    status, answer = collect(gateway, *many(11))
    assert (status, answer["error"]["code"]) == (403, "refused")
    assert answer["error"]["message"].startswith("11 functions would be deleted, 10 are allowed")
    assert len(answer["error"]["would_remove"]) == 11
    assert not gateway.made("DELETE", "/")
    assert collect(gateway, *many(10))[0] == 200
    assert collect(gateway, *many(11), limit=11)[0] == 200, "the operator's word in the request"
    monkeypatch.setenv("delete_limit", "11")
    assert collect(gateway, *many(11))[0] == 200, "or as a setting"
    assert collect(gateway, *many(3), limit=2)[0] == 403


def test_what_goes_on_under_a_new_owners_name_is_no_loss(
    gateway: FakeGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("delete_limit", "0")
    moved = deployed("old-owner-keep", git_owner="Old-Owner")
    assert collect(gateway, moved) == (200, {"removed": ["old-owner-keep"]})
    assert collect(gateway, deployed("old-owner-other", git_owner="Old-Owner"))[0] == 403


def test_a_dry_run_says_what_would_go_and_deletes_nothing(
    gateway: FakeGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    told = collect(gateway, deployed("alice-gone"), dry_run=True)
    assert told == (200, {"removed": [], "would_remove": ["alice-gone"]})
    [record] = [found for line in capsys.readouterr().out.splitlines() if (found := records.parse(line))]
    assert (record.stage, record.outcome, record.log) == ("collect", "skipped", ["would remove alice-gone"])
    status, answer = collect(gateway, *many(11), dry_run=True)
    assert (status, len(answer["would_remove"])) == (200, 11)
    assert "11 functions would be deleted" in answer["refused"]
    assert not gateway.made("DELETE", "/")


def test_a_name_that_another_took_during_the_deletion_is_no_failure(
    gateway: FakeGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handler, "GONE_SECONDS", 0)

    def take_over(method: str, path: str, body: bytes) -> tuple[int, bytes] | None:
        if method != "DELETE":
            return None
        gateway.functions["alice-gone"] = deployed("alice-gone", 8)
        return 200, b""

    gateway.overrides.append(take_over)
    assert collect(gateway, deployed("alice-gone")) == (200, {"removed": ["alice-gone"]})


def test_the_inventory_names_the_repositories_that_have_functions(gateway: FakeGateway) -> None:
    names: dict[str, Any] = {"git_owner": "alice", "git_owner_id": "3", "git_repo": "hello"}
    functions = [
        deployed("alice-b", **names),
        deployed("alice-a", **names),
        deployed("alice-x", 8, **{**names, "git_repo": "shop"}),
        deployed("bob-x", 9, **{**names, "git_owner_id": "4"}),
        deployed("bob-y", 7, git_scm="gitlab", git_owner_id="3"),
        deployed("bob-z", 7, git_owner_id="three"),
    ]
    gateway.functions = {rows["service"]: rows for rows in functions}

    def asked(**of: Any) -> list[tuple[int, str, list[str]]]:
        status, answer = send(Inventory("github", "d", Asked(**of)))
        assert status == 200
        return [(row["id"], row["name"], row["functions"]) for row in answer["repositories"]]

    hello = (7, "hello", ["alice-a", "alice-b"])
    assert asked(owner_id=3) == [hello, (8, "shop", ["alice-x"])]
    assert asked(owner_id=3, repositories=(7, 10)) == [hello]
    assert asked(repositories=(9,)) == [(9, "hello", ["bob-x"])]
    assert asked() == []
