"""Whose functions a push may touch: with all of its functions, in both directions, and against the clock."""

from __future__ import annotations

import json
from typing import Any

import pytest

import buildshiprun.handler
from git_tar.sdk import messages
from git_tar.sdk.messages import Closing, Finish, Owner, Repository

from .fakes import Event
from .test_garbage_collect import deployed
from .test_pipeline import KEYS, Cloud, cloud, files

__all__ = ["cloud"]  # a fixture


def repository(cloud: Cloud, owner: str, owner_id: int, repo_id: int, *, private: bool = False) -> Repository:
    url = cloud.origin.url
    return Repository(repo_id, "shop", f"{owner}/shop", url, "", private, Owner(owner, owner_id))


def push(cloud: Cloud, function: str, by: Repository) -> tuple[int, str]:
    status, answer = cloud.push(cloud.origin.commit(files(function)), repository=by)
    return status, str(answer)


@pytest.mark.parametrize("first", ["a", "a-b"])
@pytest.mark.parametrize("private", [False, True])
def test_owners_whose_names_clash_never_touch_each_other(first: str, private: bool, cloud: Cloud) -> None:
    """Flaw 3: owner `a` with function `b-c` overwrote owner `a-b`'s function `c`."""
    function = {"a": "b-c", "a-b": "c"}
    second = "a-b" if first == "a" else "a"
    theirs, ours = repository(cloud, first, 1, 11, private=private), repository(cloud, second, 2, 12)
    assert push(cloud, function[first], theirs)[0] == 200
    before = dict(cloud.gateway.functions["a-b-c"])
    status, said = push(cloud, function[second], ours)
    assert status == 422
    shown = f"a private repository of {first}" if private else f"{first}/shop"
    assert f"a-b-c belongs to {shown}; {second}/shop can't have a function of that name" in said
    assert (f"{first}/shop" in said) is not private
    assert push(cloud, "other", ours)[0] == 200, "nor is theirs collected as what left ours"
    assert cloud.gateway.functions["a-b-c"] == before


@pytest.mark.parametrize("how", ["answered", "answered late"])
def test_a_name_that_another_takes_during_the_build_is_theirs(how: str, cloud: Cloud) -> None:
    """Both found the name free; whoever creates it first has it."""
    theirs = deployed("alice-one", 99, git_owner="alice-o", git_private="0", git_repo="ne")

    def taken(method: str, path: str, body: bytes) -> None:
        built = bool(cloud.builder.built) and "alice-one" not in cloud.gateway.functions
        at = "GET" if how == "answered" else "POST"
        if built and method == at and path.startswith("/system/function"):
            cloud.gateway.functions["alice-one"] = theirs

    cloud.gateway.overrides.append(taken)
    status, answer = cloud.push(cloud.origin.commit(files("one")))
    assert status in (422, 503)
    assert cloud.gateway.functions["alice-one"] == theirs
    assert not cloud.gateway.made("PUT", "/system/functions")
    status, answer = cloud.push(cloud.origin.commit({"README.md": "again"}))
    assert (status, "belongs to alice-o/ne" in str(answer)) == (422, True)


@pytest.mark.parametrize(
    "labels",
    [
        {"Git-Cloud": "1", "Git-Owner": "alice", "Git-Repo": "hello"},
        {
            "com.openfaas.cloud.git-cloud": "1",
            "com.openfaas.cloud.git-owner": "alice",
            "com.openfaas.cloud.git-owner-id": "0",
            "com.openfaas.cloud.git-repo": "hello",
        },
    ],
)
def test_the_originals_functions_are_adopted_if_the_operator_wants_it(
    labels: dict[str, str], cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs: dict[str, Any] = {"service": "alice-one", "image": "i", "labels": labels}
    cloud.gateway.functions["alice-one"] = theirs
    sha = cloud.origin.commit(files("one"))
    status, answer = cloud.push(sha)
    assert (status, cloud.gateway.functions["alice-one"]) == (422, theirs)
    assert "adopt_legacy" in str(answer)
    monkeypatch.setenv("adopt_legacy", "true")
    assert cloud.push(sha)[0] == 200
    now = cloud.gateway.functions["alice-one"]["labels"]
    assert (now["com.openfaas.cloud.git-repo-id"], "Git-Owner" in now) == ("7", False)


def test_a_closing_message_that_keeps_nothing_deletes_nothing(cloud: Cloud) -> None:
    cloud.push(cloud.origin.commit(files("one")))
    finish = Finish("github", "d", "alice", 3, "hello", 7, "a" * 40, ())
    body = messages.seal("buildshiprun", Closing(finish))
    answer = buildshiprun.handler.handle(Event(body, messages.headers(body, KEYS)), None)
    assert (answer["statusCode"], json.loads(answer["body"])["error"]["code"]) == (403, "refused")
    assert set(cloud.live) == {"alice-one"}
