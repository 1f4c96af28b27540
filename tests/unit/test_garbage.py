"""garbage-collect's decision: what is a repository's own and no longer kept."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from garbage_collect.sdk.errors import Refused, Unavailable
from garbage_collect.sdk.gateway import Status
from garbage_collect.sdk.messages import Asked, Collect
from garbage_collect.stale import check_kept, held, stale

REQUEST = Collect("github", "d", "Alice", 3, "hello", 7, ("keep", "also"), "a" * 40, "push")
CLOUD = "com.openfaas.cloud."


def function(name: str, repo_id: int = 7, scm: str = "github", cloud: str = "1") -> Status:
    labels = {f"{CLOUD}git-cloud": cloud, f"{CLOUD}git-scm": scm, f"{CLOUD}git-repo-id": str(repo_id)}
    return Status(name=name, labels=labels)


def test_only_the_repositorys_own_functions_that_are_not_kept_are_stale() -> None:
    """Flaw 13: the first garbage collection ignored owner and repository."""
    functions = [
        function("alice-keep"),
        function("alice-gone"),
        function("alice-other", repo_id=8),
        function("alice-lab", scm="gitlab"),
        function("bob-gone", repo_id=9),
        function("alice-odd", cloud=""),
        Status(name="alice-hand-made"),
        Status(name="gateway", labels={f"{CLOUD}git-repo-id": "7"}),
    ]
    assert stale(functions, REQUEST) == ["alice-gone"]


def test_what_was_deployed_under_an_earlier_name_of_the_owner_is_stale() -> None:
    assert stale([function("old-name-keep"), function("alice-keep")], REQUEST) == ["old-name-keep"]


def test_an_empty_list_deletes_nothing() -> None:
    with pytest.raises(Refused, match="nothing is deleted"):
        stale([function("alice-gone")], replace(REQUEST, functions=()))


def test_the_platform_is_never_stale_whatever_its_labels() -> None:
    assert stale([function("git-tar"), function("of-builder")], REQUEST) == []


@given(
    st.lists(st.builds(function, st.sampled_from(["alice-keep", "alice-x", "y"]), st.integers(6, 8))),
    st.lists(st.sampled_from(["keep", "x"]), min_size=1),
)
def test_nothing_kept_or_foreign_is_ever_stale(functions: list[Status], keep: list[str]) -> None:
    found = stale(functions, replace(REQUEST, functions=tuple(keep)))
    assert not set(found) & {f"alice-{name}" for name in keep}
    for name in found:
        assert any(status.name == name and status == function(name) for status in functions)


@given(
    st.lists(st.builds(function, st.sampled_from(["alice-keep", "bob-keep", "git-tar"]), st.integers(6, 8))),
    st.booleans(),
    st.sampled_from(["push", "uninstall", ""]),
    st.lists(st.sampled_from(["keep", "x"])),
)
def test_everything_goes_only_if_both_words_say_so(
    functions: list[Status], uninstall: bool, reason: str, keep: list[str]
) -> None:
    request = replace(REQUEST, functions=tuple(keep), uninstall=uninstall, reason=reason)
    try:
        found = stale(functions, request)
    except Refused:
        assert not keep or uninstall or reason == "uninstall"
    else:
        assert bool(keep) is not (uninstall and reason == "uninstall")
        assert "git-tar" not in found


def test_what_stays_may_be_named_with_its_namespace() -> None:
    labels = function("x").labels
    there = [
        ("", Status("alice-keep", namespace="fn", labels=labels)),
        ("dev", Status("alice-also", namespace="dev", labels=labels)),
    ]
    for keep in (("keep", "also.dev"), ("keep.fn",)):
        check_kept(there, replace(REQUEST, functions=keep))
    for keep in (("also",), ("keep.dev",), ("keep", "gone")):
        with pytest.raises(Unavailable, match="nothing is deleted"):
            check_kept(there, replace(REQUEST, functions=keep))


LABELS = st.dictionaries(
    st.sampled_from([f"{CLOUD}git-{name}" for name in "cloud scm repo-id owner-id".split()]),
    st.sampled_from(["1", "github", "7", "3"]) | st.text(),
)


@given(st.lists(st.builds(lambda labels: Status("alice-x", labels=labels), LABELS)))
def test_whatever_the_labels_the_inventory_holds_what_was_asked_for(functions: list[Status]) -> None:
    assert {each.owner_id for each in held(functions, "github", Asked(3))} <= {3}
    assert {each.id for each in held(functions, "github", Asked(3, (7,)))} <= {7}
    assert held(functions, "github", Asked()) == []
