"""gh-push's decisions: which events interest us, and what git-tar is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gh_push import push
from gh_push.push import Ignored
from gh_push.sdk.errors import Malformed
from gh_push.sdk.messages import Left, Push

EVENT: dict[str, Any] = {
    "ref": "refs/heads/master",
    "before": "0" * 40,
    "after": "a" * 40,
    "deleted": False,
    "repository": {
        "id": 7,
        "name": "hello",
        "full_name": "alice/hello",
        "clone_url": "https://github.com/alice/hello.git",
        "html_url": "https://github.com/alice/hello",
        "private": True,
        "owner": {"login": "alice", "id": 3},
        "stargazers_count": 0,
    },
    "installation": {"id": 9, "node_id": "x"},
    "commits": [],
}


def interpret(event: dict[str, Any] | bytes, kind: str | None = "push") -> Push | Left | Ignored:
    body = event if isinstance(event, bytes) else json.dumps(event).encode()
    return push.interpret(body, kind, "d-1", scm="github", build_branch="master")


def test_a_push_to_the_build_branch_is_trimmed_to_what_git_tar_needs() -> None:
    found = interpret(EVENT)
    assert isinstance(found, Push)
    assert (found.scm, found.delivery, found.after) == ("github", "d-1", "a" * 40)
    assert found.repository.owner.id == 3
    assert found.repository.private
    assert found.installation
    assert found.installation.id == 9


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"ref": "refs/heads/main"}, "branch main is not built: master is"),
        ({"ref": "refs/heads/x/master"}, "x/master"),
        ({"ref": "refs/tags/v1"}, "not a branch"),
        ({"ref": "refs/heads/refs/heads/master"}, "not built"),
        ({"after": "0" * 40}, "was deleted"),
        ({"deleted": True}, "was deleted"),
    ],
)
def test_other_refs_and_deletions_are_ignored_with_the_reason(change: dict[str, Any], reason: str) -> None:
    """Flaw 9: a branch deletion (`after` all zeros) was not noticed."""
    found = interpret({**EVENT, **change})
    assert isinstance(found, Ignored)
    assert reason in found.reason


def test_ping_answers_pong_and_other_events_are_named() -> None:
    assert interpret(b"{}", "ping") == Ignored("pong")
    assert interpret(b"{}", "label") == Ignored("event label is not used here")


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"{}", b'{"ref": 5}', b"\xff", b"null"])
def test_what_is_no_push_event_is_malformed(body: bytes) -> None:
    with pytest.raises(Malformed):
        interpret(body)


def test_an_event_without_its_header_is_malformed() -> None:
    with pytest.raises(Malformed, match="X-GitHub-Event"):
        interpret(EVENT, None)


@given(st.sampled_from(sorted(EVENT)), st.none() | st.integers() | st.text() | st.lists(st.integers()))
def test_whatever_a_field_holds_it_is_interpreted_or_malformed(field: str, value: object) -> None:
    try:
        interpret({**EVENT, field: value})
    except Malformed:
        return


def test_githubs_own_example_is_understood(shared: Path) -> None:
    found = interpret((shared / "github" / "push.branch.json").read_bytes())
    assert isinstance(found, Push)
    assert found.repository.full_name == "Codertocat/Hello-World"
    assert isinstance(interpret((shared / "github" / "push.tag.json").read_bytes()), Ignored)


@pytest.mark.parametrize("name", ["label.deleted", "ping", "repository.renamed", "installation.created"])
def test_another_signed_event_said_to_be_a_push_is_malformed(name: str, shared: Path) -> None:
    """X-GitHub-Event is not signed: a real body of another event must not pass for a push."""
    with pytest.raises(Malformed):
        interpret((shared / "github" / f"{name}.json").read_bytes())
