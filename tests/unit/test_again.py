"""gh-push's reading of "Re-run": of our own App's checks alone, and of no other event's body."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gh_push import push
from gh_push.again import EVENTS
from gh_push.push import Ignored
from gh_push.sdk.errors import Malformed
from gh_push.sdk.messages import Left, Push
from tests.unit.test_leaving import BODIES
from tests.unit.test_push import EVENT

SHA = "a" * 40
CHECK = {"id": 4, "head_sha": SHA, "app": {"id": 12, "client_id": "Iv1.a"}, "status": "completed"}
SUITE = {**CHECK, "head_branch": "master"}
COMMON = {
    "action": "rerequested",
    "repository": EVENT["repository"],
    "installation": {"id": 9},
    "sender": {"id": 4, "login": "bob"},
}
EVENT_BODIES: dict[str, dict[str, Any]] = {
    "check_run": {**COMMON, "check_run": {**CHECK, "check_suite": {"id": 5, "head_branch": "master"}}},
    "check_suite": {**COMMON, "check_suite": SUITE},
}
EACH = pytest.mark.parametrize("event", sorted(EVENTS))


def interpret(event: str, body: dict[str, Any] | bytes, app: str = "12") -> Push | Left | Ignored:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return push.interpret(raw, event, "d-1", scm="github", build_branch="master", app=app)


@EACH
@pytest.mark.parametrize("app", ["12", "Iv1.a"])
def test_re_run_is_as_good_as_a_push_of_the_branch(event: str, app: str) -> None:
    found = interpret(event, EVENT_BODIES[event], app)
    assert isinstance(found, Push)
    assert (found.ref, found.after, found.delivery) == ("refs/heads/master", SHA, "rerun-d-1")
    assert found.installation
    assert (found.repository.id, found.installation.id, found.periodic) == (7, 9, False)


@EACH
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"action": "created"}, "nobody asks"),
        ({"action": "completed"}, "nobody asks"),
        ({"action": "requested"}, "nobody asks"),
        ({"installation": None}, "another App"),
    ],
)
def test_what_asks_for_nothing_is_ignored(event: str, change: dict[str, Any], reason: str) -> None:
    found = interpret(event, {**EVENT_BODIES[event], **change})
    assert isinstance(found, Ignored)
    assert reason in found.reason


@EACH
@pytest.mark.parametrize("app", ["", "13", "1", "Iv1.b"])
def test_a_check_of_another_app_is_ignored(event: str, app: str) -> None:
    assert interpret(event, EVENT_BODIES[event], app) == Ignored(f"{event} of another App")


def test_a_check_of_another_branch_is_ignored() -> None:
    body = {**COMMON, "check_suite": {**SUITE, "head_branch": "wip"}}
    assert interpret("check_suite", body) == Ignored("branch wip is not built: master is")


@EACH
@pytest.mark.parametrize("other", [*BODIES, "push", "check_run", "check_suite"])
def test_another_events_body_is_malformed(event: str, other: str) -> None:
    """X-GitHub-Event is not signed."""
    if other != event:
        with pytest.raises(Malformed):
            interpret(event, {**BODIES, **EVENT_BODIES, "push": EVENT}[other])


@given(
    st.sampled_from(sorted(EVENTS)),
    st.sampled_from(["action", "check_run", "check_suite", "repository", "installation"]),
    st.none() | st.integers() | st.text() | st.lists(st.integers()) | st.dictionaries(st.text(), st.text()),
)
def test_whatever_a_field_holds_it_is_interpreted_or_malformed(event: str, field: str, value: object) -> None:
    try:
        interpret(event, {**EVENT_BODIES[event], field: value})
    except Malformed:
        return


def test_githubs_own_example_is_understood(shared: Path) -> None:
    body = json.loads((shared / "github" / "check_run.rerequested.json").read_bytes())
    found = interpret("check_run", body, "2")
    assert isinstance(found, Push)
    assert found.after == body["check_run"]["head_sha"]
    assert interpret("check_run", body, "12") == Ignored("check_run of another App")


@EACH
@pytest.mark.parametrize("name", ["label.deleted", "ping", "repository.renamed", "push.branch"])
def test_another_signed_event_said_to_be_a_check_is_malformed(event: str, name: str, shared: Path) -> None:
    with pytest.raises(Malformed):
        interpret(event, (shared / "github" / f"{name}.json").read_bytes())
