"""Which repositories reconcile finds, and who comes next."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconcile import installed
from reconcile.installed import Known, Listing
from reconcile.sdk import messages
from reconcile.sdk.gateway import Status
from reconcile.sdk.messages import NO_COMMIT, Collect, Installation, Owner, Push, Repository
from reconcile.sdk.settings import Settings
from reconcile.turns import Looks, Turns

CLOUD = "com.openfaas.cloud."
SETTINGS = Settings()
LABELS = {
    "git-cloud": "1",
    "git-scm": "github",
    "git-owner": "alice",
    "git-owner-id": "3",
    "git-repo": "hello",
    "git-repo-id": "7",
    "git-private": "0",
    "git-sha": "a" * 40,
    "git-deploytime": "100",
}
ANNOTATIONS = {
    "git-repo-url": "https://github.com/alice/hello",
    "git-clone-url": "https://github.com/alice/hello.git",
}
HELLO = Repository(
    id=7,
    name="hello",
    full_name="alice/hello",
    clone_url="https://github.com/alice/hello.git",
    html_url="https://github.com/alice/hello",
    private=False,
    owner=Owner("alice", 3),
)


def function(
    name: str = "alice-hello", labels: Mapping[str, str] = {}, annotations: Mapping[str, str] = {}
) -> Status:
    """A function of alice/hello; a label or annotation of None is not there."""
    return Status(
        name=name,
        labels={CLOUD + key: text for key, text in {**LABELS, **labels}.items() if text},
        annotations={CLOUD + key: text for key, text in {**ANNOTATIONS, **annotations}.items() if text},
    )


def found(*functions: Status, **settings: object) -> list[Known]:
    return list(installed.deployed(functions, replace(SETTINGS, **settings)).values())  # type: ignore[arg-type]


def test_functions_of_one_repository_are_one_entry_as_the_last_deploy_has_it() -> None:
    old = function(labels={"git-owner": "bob", "git-deploytime": "99", "git-sha": "b" * 40})
    assert found(function(), old, function("alice-two")) == [Known("github", HELLO, "a" * 40, at=100)]
    assert found(old, function(), function("alice-two")) == [Known("github", HELLO, "a" * 40, at=100)]


def test_another_scm_with_the_same_id_is_another_repository() -> None:
    assert {known.key for known in found(function(), function(labels={"git-scm": "gitlab"}))} == {
        ("github", 7),
        ("gitlab", 7),
    }


@pytest.mark.parametrize(
    "labels",
    [
        {"git-cloud": ""},
        {"git-scm": ""},
        {"git-scm": "git hub"},
        {"git-owner": ""},
        {"git-owner-id": ""},
        {"git-repo-id": "0x7"},
        {"git-repo-id": "٧"},
        {"git-repo-id": "9" * 40},
    ],
)
def test_what_says_too_little_is_left_out(labels: Mapping[str, str]) -> None:
    assert found(function(labels=labels)) == []


def test_what_carries_the_platforms_name_is_not_an_authors() -> None:
    assert found(function("git-tar")) == []


@pytest.mark.parametrize(
    ("page", "hosts", "scm", "expected"),
    [
        ("https://github.com/alice/hello", ("https://github.com",), "github", "https://github.com"),
        (
            "http://127.0.0.1:8082/alice/hello",
            ("http://git-server:8080/",),
            "github",
            "http://git-server:8080",
        ),
        ("http://127.0.0.1:8082/alice/hello", ("http://git-server:8080",), "local", ""),
        ("", ("https://github.com",), "github", ""),
        ("https://[/alice/hello", ("https://github.com",), "github", ""),
        ("https://github.com/alice/hello", (), "github", ""),
    ],
)
def test_the_clone_url_of_an_old_deployment_is_made_of_its_page(
    page: str, hosts: tuple[str, ...], scm: str, expected: str
) -> None:
    old = function(annotations={"git-clone-url": "", "git-repo-url": page})
    urls = [known.repository.clone_url for known in found(old, allowed_git_hosts=hosts, git_scm=scm)]
    assert urls == ([f"{expected}/alice/hello.git"] if expected else [])


def test_a_name_that_no_label_holds_is_taken_from_the_url() -> None:
    url = "https://github.com/alice/_hello.git"
    [known] = found(function(annotations={"git-clone-url": url}))
    assert (known.repository.name, known.repository.full_name) == ("_hello", "alice/_hello")
    [known] = found(function(annotations={"git-clone-url": "https://github.com/mallory/other.git"}))
    assert known.repository.full_name == "alice/hello"


ODD = st.dictionaries(
    st.sampled_from(sorted(LABELS)), st.text(max_size=70) | st.sampled_from(["1", "7", "9" * 63, "github"])
)


@given(ODD, st.dictionaries(st.sampled_from(sorted(ANNOTATIONS)), st.text()), st.booleans())
def test_whatever_the_labels_are_what_is_found_is_a_message(
    labels: Mapping[str, str], annotations: Mapping[str, str], whole: bool
) -> None:
    odd = function(
        labels=labels if whole else {**dict.fromkeys(LABELS, ""), **labels}, annotations=annotations
    )
    for known in found(odd, Status(name="none"), function()):
        for receiver, message in (
            ("git-tar", installed.push(known, SETTINGS, periodic=True)),
            ("garbage-collect", installed.uninstall(known)),
        ):
            body = messages.seal(receiver, message, now=0)
            kind: type[Push | Collect] = type(message)
            assert messages.unseal(body, receiver, kind) == message


def test_the_message_is_the_one_that_gh_push_would_queue() -> None:
    push = installed.push(
        Known("github", HELLO, "a" * 40, 42), replace(SETTINGS, build_branch="main"), periodic=True
    )
    assert (push.ref, push.before, push.after) == ("refs/heads/main", "a" * 40, NO_COMMIT)
    assert (push.repository, push.installation) == (HELLO, Installation(42))
    assert push.delivery.startswith("reconcile-")
    first = installed.push(Known("github", HELLO), SETTINGS, periodic=False)
    assert (first.before, first.installation) == (NO_COMMIT, None)
    assert first.delivery != push.delivery


def test_what_the_app_says_of_a_repository_is_newer() -> None:
    there = installed.deployed([function()], SETTINGS)
    moved = replace(HELLO, full_name="bob/moved", owner=Owner("bob", 9))
    other = replace(HELLO, id=8)
    merged = installed.merged(there, Listing({7: (moved, 42), 8: (other, 43)}, {}))
    assert merged == {
        ("github", 7): Known("github", moved, "a" * 40, 42, at=100),
        ("github", 8): Known("github", other, "", 43),
    }


def test_of_several_ids_with_one_name_one_is_current() -> None:
    old, new = Known("github", HELLO, at=100), Known("github", replace(HELLO, id=8), at=200)
    listed = Known("github", replace(HELLO, id=6, full_name="Alice/hello"), installation=42)
    other = Known("local", HELLO)
    for rows, expected in (
        ([new, old], [new]),
        ([old, new, other], [new, other]),
        ([new, listed], [listed]),
        ([replace(old, at=200), new], [new]),
    ):
        found = installed.current({known.key: known for known in rows})
        assert set(found) == {known.key for known in expected}


def test_only_what_a_whole_list_of_its_owner_lacks_may_have_left() -> None:
    there = installed.deployed([function()], SETTINGS)
    assert installed.unlisted(there, Listing({}, {3: 42})).keys() == {("github", 7)}
    assert not installed.unlisted(there, Listing({}, {4: 42}))
    assert not installed.unlisted(there, Listing({7: (HELLO, 43)}, {3: 42}))
    local = installed.deployed([function(labels={"git-scm": "local"})], SETTINGS)
    assert not installed.unlisted(local, Listing({}, {3: 42}))


def test_a_private_repository_is_only_looked_at_through_the_app() -> None:
    app = replace(SETTINGS, github_app_id="12")
    secret = Known("github", replace(HELLO, private=True))
    assert not installed.readable(secret, app)
    assert installed.readable(replace(secret, installation=42), app)
    assert installed.readable(secret, SETTINGS)
    assert installed.readable(Known("github", HELLO), app)


@given(st.sets(st.integers(), min_size=1, max_size=30), st.integers(1, 10))
def test_everybody_has_a_turn_before_anybody_has_a_second(keys: set[int], limit: int) -> None:
    turns, seen = Turns(), list[int]()
    while len(seen) < len(keys):
        chosen = turns.next(keys, limit)
        assert len(chosen) == min(limit, len(keys))
        seen += chosen
    assert set(seen[: len(keys)]) == keys


def test_turns_keep_no_more_than_who_is_there() -> None:
    turns = Turns()
    turns.next(range(1000), 1000)
    turns.next([1], 5)
    assert len(turns._last) == 1
    assert turns.next([1, 2], 0) == []


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 40))
def test_never_more_than_the_limit_and_both_kinds_come(deployed: int, new: int, limit: int) -> None:
    old, fresh = [("old", number) for number in range(deployed)], [("new", number) for number in range(new)]
    chosen = Looks().next(old, fresh, limit)
    assert len(chosen) == min(limit, deployed + new)
    assert len(set(chosen)) == len(chosen)
    kinds = {kind for kind, _ in chosen}
    if limit >= 4:
        assert kinds == {kind for kind, many in (("old", deployed), ("new", new)) if many}
