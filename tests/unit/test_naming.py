from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdk import naming, stack
from sdk.errors import Refused
from tests.conftest import ROOT

OUR_STACK = stack.parse((ROOT / "stack.yml").read_bytes())
KUBERNETES_LABEL = re.compile(r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?")


def test_a_service_is_the_lower_case_owner_and_the_function() -> None:
    assert naming.service_name("Codertocat", "hello") == "codertocat-hello"


@pytest.mark.parametrize(
    ("owner", "function"),
    [
        ("alice", "Hello"),
        ("alice", ""),
        ("alice", "."),
        ("alice", "../victim"),
        ("alice", "a/b"),
        ("alice", "-a"),
        ("alice", "a-"),
        ("alice", "a" * 60),
        ("alice", "ä"),
        ("a_b", "c"),
    ],
)
def test_names_that_a_cluster_refuses_fail_early(owner: str, function: str) -> None:
    """Flaw 14: they failed late and unclearly."""
    with pytest.raises(Refused):
        naming.service_name(owner, function)


@pytest.mark.parametrize(
    ("owner", "function"), [("git", "tar"), ("gh", "push"), ("of", "builder"), ("Garbage", "collect")]
)
def test_the_platforms_own_names_are_refused(owner: str, function: str) -> None:
    """Flaw 3: owner `git` with function `tar` overwrote the platform's git-tar."""
    with pytest.raises(Refused, match="part of the platform"):
        naming.service_name(owner, function)


def test_every_function_of_our_own_stack_is_reserved() -> None:
    assert {function.name for function in OUR_STACK.functions} == naming.PIPELINE


def test_two_owners_never_share_a_path_or_a_secret() -> None:
    """Flaws 3 and 4: owner `a` with `b-c` clashed with owner `a-b` and `c`."""
    assert naming.image_repository("r:5000/", "github", 1, 2, "f") == "r:5000/github/1/2/f"
    assert naming.user_secret("github", 1, "b") == "gh-1-b"
    assert naming.user_secret("local", 12, "3") != naming.user_secret("local", 1, "2-3")


IDS = st.integers(1, 10**12)
SCMS = st.sampled_from(["github", "gitlab", "local"])


@given(st.tuples(SCMS, IDS, st.text()), st.tuples(SCMS, IDS, st.text()))
def test_no_owner_can_name_anothers_secret_or_the_platforms(
    one: tuple[str, int, str], other: tuple[str, int, str]
) -> None:
    """Flaw 4: owner `payload` with `secret` was the platform's own."""
    ours = {secret for function in OUR_STACK.functions for secret in function.secrets}
    assert "payload-secret" in ours
    assert naming.user_secret(*one) not in ours
    assert (naming.user_secret(*one) == naming.user_secret(*other)) is (one == other)


@given(st.text())
def test_a_label_value_is_one_that_kubernetes_takes(text: str) -> None:
    value = naming.label_value(text)
    assert len(value) <= 63
    assert KUBERNETES_LABEL.fullmatch(value)


def test_a_branch_with_a_slash_becomes_a_label() -> None:
    assert naming.label_value("feature/x") == "feature-x"


@given(st.text(max_size=70), st.text(max_size=70))
def test_any_two_names_give_a_service_or_are_refused(owner: str, function: str) -> None:
    try:
        assert naming.SERVICE.fullmatch(naming.service_name(owner, function))
    except Refused:
        return
