from __future__ import annotations

import contextlib
import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdk import messages
from sdk.errors import CloudError, Malformed, Unauthorized
from sdk.messages import (
    Collect,
    Departure,
    Inventory,
    Left,
    Owner,
    Push,
    Repository,
    Shipment,
)
from sdk.secrets import Keys
from sdk.stack import Function, Resources

KEYS = Keys("payload-secret", (b"payload",))
REPOSITORY = Repository(
    id=7,
    name="hello",
    full_name="alice/hello",
    clone_url="https://git.example/alice/hello.git",
    html_url="https://git.example/alice/hello",
    private=False,
    owner=Owner("alice", 3),
)
PUSH = Push("github", "d-1", "refs/heads/master", "0" * 40, "a" * 40, REPOSITORY)


def test_a_message_comes_back_as_it_was_sealed() -> None:
    body = messages.seal("git-tar", PUSH, now=1000)
    assert messages.unseal(body, "git-tar", Push) == Push(**{**vars(PUSH), "at": 1000})


def test_the_kinds_of_one_receiver_are_told_apart() -> None:
    left = Left("github", "d-1", Departure("repository deleted", Owner("alice", 3), 9, (7,)))
    body = messages.seal("git-tar", left, now=1000)
    assert json.loads(body)["left"] == {
        "cause": "repository deleted",
        "owner": {"login": "alice", "id": 3},
        "installation": 9,
        "repositories": [7],
    }
    assert messages.carries(body, "left")
    assert messages.unseal(body, "git-tar", Left) == Left(**{**vars(left), "at": 1000})
    assert not messages.carries(messages.seal("git-tar", PUSH), "left")
    assert not any(messages.carries(odd, "left") for odd in (b"", b"[]", b'"left"', b"\xff", b"[" * 100_000))


def test_the_signed_body_says_whom_it_is_for_and_when_it_was_made() -> None:
    body = json.loads(messages.seal("git-tar", PUSH, now=1000))
    assert (body["for"], body["at"]) == ("git-tar", 1000)
    assert body["repository"]["owner"] == {"login": "alice", "id": 3}


def test_a_shipment_carries_the_function_as_stack_yml_has_it() -> None:
    function = Function(
        "f", lang="python3-http", secrets=("s",), environment={"A": "1"}, limits=Resources("64Mi")
    )
    shipment = Shipment("github", "d", REPOSITORY, "refs/heads/main", "a" * 40, function, "digest")
    body = messages.seal("buildshiprun", shipment)
    assert messages.unseal(body, "buildshiprun", Shipment) == shipment
    assert json.loads(body)["function"]["lang"] == "python3-http"
    assert shipment.branch == "main"


def test_a_message_for_another_function_is_unauthorized() -> None:
    with pytest.raises(Unauthorized, match="not for buildshiprun"):
        messages.unseal(messages.seal("git-tar", PUSH), "buildshiprun", Push)


@pytest.mark.parametrize("age", [3601, -3601])
def test_a_message_too_old_or_from_the_future_is_unauthorized(age: int) -> None:
    body = messages.seal("git-tar", PUSH, now=time.time() - age)
    messages.unseal(body, "git-tar", Push)
    with pytest.raises(Unauthorized, match="too old"):
        messages.unseal(body, "git-tar", Push, max_age=3600)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"\xff",
        b'{"for": "git-tar"}',
        b'{"for": "git-tar", "at": "now"}',
        b'{"for": "git-tar", "at": 1}',
        b'{"for": "git-tar", "at": true, "scm": 5}',
        b"[" * 100_000,
    ],
)
def test_whatever_is_no_message_is_malformed(body: bytes) -> None:
    with pytest.raises((Malformed, Unauthorized)):
        messages.unseal(body, "git-tar", Push)


@given(st.binary() | st.text().map(str.encode))
def test_no_bytes_raise_anything_else(body: bytes) -> None:
    for kind in (Push, Left, Shipment, Collect, Inventory):
        with pytest.raises(CloudError):
            messages.unseal(body, "git-tar", kind)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


@given(st.dictionaries(st.sampled_from([*vars(PUSH), "for", "at"]), JSON))
def test_no_json_of_the_right_names_raises_anything_else(fields: dict[str, object]) -> None:
    body = json.dumps({"for": "git-tar", "at": 1, **fields}).encode(errors="replace")
    with contextlib.suppress(Malformed, Unauthorized):
        messages.unseal(body, "git-tar", Push)


def test_the_signature_is_checked_before_the_body_is_read() -> None:
    with pytest.raises(Unauthorized):
        messages.verified(b"{ not json", {}, KEYS)
    body = messages.seal("git-tar", PUSH)
    assert messages.verified(body, messages.headers(body, KEYS), KEYS) == body
