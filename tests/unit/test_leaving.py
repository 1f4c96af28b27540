"""gh-push's reading of events that say a repository left or moved: real bodies, and those that look alike."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gh_push import push
from gh_push.leaving import EVENTS
from gh_push.push import Ignored
from gh_push.sdk.errors import Malformed
from gh_push.sdk.messages import Departure, Installation, Left, Owner, Push
from tests.unit.test_push import EVENT
from tests.unit.test_push import interpret as of_push

ALICE = {"id": 3, "login": "alice", "type": "User"}
SENDER = {"id": 4, "login": "bob"}
INSTALLATION = {"id": 9, "account": ALICE, "app_id": 12, "suspended_at": None}
REPOSITORY = EVENT["repository"]
BODIES: dict[str, dict[str, Any]] = {
    "installation": {
        "action": "deleted",
        "installation": INSTALLATION,
        "repositories": [{"id": 7, "name": "hello", "full_name": "alice/hello", "private": False}],
        "sender": SENDER,
    },
    "installation_repositories": {
        "action": "removed",
        "installation": INSTALLATION,
        "repository_selection": "selected",
        "repositories_added": [],
        "repositories_removed": [{"id": 7, "full_name": "alice/hello"}, {"id": 8, "full_name": "alice/x"}],
        "requester": None,
        "sender": SENDER,
    },
    "repository": {
        "action": "deleted",
        "repository": REPOSITORY,
        "sender": SENDER,
        "installation": {"id": 9, "node_id": "x"},
    },
}


def interpret(event: str, body: dict[str, Any] | bytes) -> Push | Left | Ignored:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return push.interpret(raw, event, "d-1", scm="github", build_branch="master")


def test_what_left_is_named_by_ids_alone() -> None:
    alice = Owner("alice", 3)
    assert interpret("installation", BODIES["installation"]) == Left(
        "github", "d-1", Departure("installation deleted", alice, 9)
    )
    assert interpret("installation", {**BODIES["installation"], "action": "suspend"}) == Left(
        "github", "d-1", Departure("installation suspend", alice, 9)
    )
    assert interpret("installation_repositories", BODIES["installation_repositories"]) == Left(
        "github", "d-1", Departure("installation_repositories removed", alice, 9, (7, 8))
    )
    assert interpret("repository", BODIES["repository"]) == Left(
        "github", "d-1", Departure("repository deleted", alice, 9, (7,))
    )


def test_an_account_that_was_deleted_or_is_an_enterprise_has_an_id_at_least() -> None:
    body = {**BODIES["installation"], "installation": {"id": 9, "account": {"id": 3, "slug": "corp"}}}
    assert interpret("installation", body) == Left(
        "github", "d-1", Departure("installation deleted", Owner("", 3), 9)
    )


@pytest.mark.parametrize(
    ("action", "changes"),
    [
        ("renamed", {"repository": {"name": {"from": "old"}}}),
        ("transferred", {"owner": {"from": {"user": {"login": "bob"}}}}),
        ("privatized", None),
        ("publicized", None),
    ],
)
def test_a_repository_that_is_elsewhere_is_as_good_as_pushed(
    action: str, changes: dict[str, Any] | None
) -> None:
    body = {**BODIES["repository"], "action": action, **({"changes": changes} if changes else {})}
    found = interpret("repository", body)
    assert isinstance(found, Push)
    assert (found.ref, found.before, found.after) == ("refs/heads/master", "", "")
    assert (found.repository.id, found.repository.full_name) == (7, "alice/hello")
    assert found.installation == Installation(9)
    if changes:
        with pytest.raises(Malformed, match=r"it has no changes\."):
            interpret("repository", {**body, "changes": {}})


@pytest.mark.parametrize(
    ("event", "action"),
    [
        ("installation", "created"),
        ("installation", "unsuspend"),
        ("installation", "new_permissions_accepted"),
        ("installation_repositories", "added"),
        ("repository", "created"),
        ("repository", "archived"),
    ],
)
def test_other_actions_are_answered_with_the_reason(event: str, action: str) -> None:
    found = interpret(event, {**BODIES[event], "action": action})
    assert found == Ignored(f"{event} {action}: nothing leaves")


def test_an_empty_list_is_not_everything() -> None:
    body = {**BODIES["installation_repositories"], "repositories_removed": []}
    assert isinstance(interpret("installation_repositories", body), Ignored)


def test_more_repositories_than_a_message_holds_are_all_of_the_owners() -> None:
    body = {**BODIES["installation_repositories"], "repositories_removed": [{"id": n} for n in range(2_001)]}
    found = interpret("installation_repositories", body)
    assert isinstance(found, Left)
    assert found.left.repositories == ()


@pytest.mark.parametrize("said", sorted(EVENTS))
@pytest.mark.parametrize("real", [*sorted(EVENTS), "push", "ping", "label", "star", "check_run", "issues"])
def test_a_signed_body_of_another_event_is_malformed(said: str, real: str) -> None:
    """X-GitHub-Event is not signed: whoever has one signed body can send it as any event."""
    if said == real:
        return
    others: dict[str, dict[str, Any]] = {
        "push": EVENT,
        "ping": {"zen": "x", "hook_id": 1, "hook": {}, "sender": SENDER},
        "label": {**BODIES["repository"], "label": {"id": 1, "name": "bug"}},
        "star": {**BODIES["repository"], "starred_at": None},
        "check_run": {**BODIES["repository"], "check_run": {"id": 4}},
        "issues": {**BODIES["repository"], "action": "transferred", "issue": {}, "changes": {"owner": {}}},
    }
    with pytest.raises(Malformed):
        interpret(said, {**BODIES, **others}[real])


@pytest.mark.parametrize("event", sorted(EVENTS))
def test_none_of_them_passes_for_a_push(event: str) -> None:
    with pytest.raises(Malformed):
        of_push(BODIES[event])


REAL = {
    "installation.created": ("installation", None),
    "installation.deleted": ("installation", ()),
    "installation.suspend": ("installation", ()),
    "installation_repositories.added": ("installation_repositories", None),
    "installation_repositories.removed": ("installation_repositories", (1296269,)),
}


@pytest.mark.parametrize("name", sorted(REAL))
def test_githubs_own_examples_are_understood(name: str, shared: Path) -> None:
    event, repositories = REAL[name]
    found = interpret(event, (shared / "github" / f"{name}.json").read_bytes())
    if repositories is None:
        assert isinstance(found, Ignored)
    else:
        assert isinstance(found, Left)
        assert found.left.repositories == repositories
        assert found.left.owner.id


@pytest.mark.parametrize("name", ["repository.renamed", "repository.transferred"])
def test_githubs_own_moves_are_pushes_of_where_it_is_now(name: str, shared: Path) -> None:
    found = interpret("repository", (shared / "github" / f"{name}.json").read_bytes())
    assert isinstance(found, Push)
    assert (found.repository.id, found.repository.full_name) == (186853261, "Octocoders/Hello-World")


@pytest.mark.parametrize("said", sorted(EVENTS))
def test_githubs_other_examples_are_never_taken_for_a_departure(said: str, shared: Path) -> None:
    for file in sorted((shared / "github").glob("*.json")):
        if file.name.split(".")[0] == said:
            continue
        with pytest.raises(Malformed):
            interpret(said, file.read_bytes())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)


@given(st.sampled_from(sorted(EVENTS)), st.data())
def test_whatever_a_field_holds_it_is_interpreted_or_malformed(event: str, data: st.DataObject) -> None:
    field = data.draw(st.sampled_from(sorted(BODIES[event])))
    body = {**BODIES[event], field: data.draw(JSON)}
    try:
        found = interpret(event, body)
    except Malformed:
        return
    assert isinstance(found, (Push, Left, Ignored))


@given(st.sampled_from(sorted(EVENTS)), st.binary() | st.text().map(str.encode))
def test_no_bytes_raise_anything_else(event: str, body: bytes) -> None:
    with pytest.raises(Malformed):
        interpret(event, body)
