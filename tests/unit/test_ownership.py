"""Whether a repository may deploy over what is there: by ids, and only what is its own."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buildshiprun.ownership import check_owner
from buildshiprun.sdk import naming
from buildshiprun.sdk.errors import Refused
from buildshiprun.sdk.gateway import Status
from buildshiprun.sdk.messages import Owner, Repository, Shipment
from tests.unit.test_deployment import CLOUD, REPOSITORY, SHIPMENT, deployed


def shipment(repository: Repository = REPOSITORY, scm: str = "github") -> Shipment:
    return replace(SHIPMENT, repository=repository, scm=scm)


def repository(owner: str, owner_id: int, name: str, repo_id: int, *, private: bool = False) -> Repository:
    url = f"https://github.com/{owner}/{name}"
    return Repository(repo_id, name, f"{owner}/{name}", f"{url}.git", url, private, Owner(owner, owner_id))


def refusal(current: Status, by: Shipment, *, adopt_legacy: bool = False) -> str:
    with pytest.raises(Refused) as raised:
        check_owner(current, by, adopt_legacy=adopt_legacy)
    return raised.value.message


def relabelled(**labels: str | None) -> Status:
    changed = {f"{CLOUD}{key.replace('_', '-')}": text for key, text in labels.items()}
    merged = {**(deployed().labels or {}), **changed}
    return deployed(labels={key: text for key, text in merged.items() if text is not None})


def test_a_new_function_and_ones_own_may_be_deployed() -> None:
    check_owner(None, SHIPMENT)
    check_owner(deployed(), SHIPMENT)


def test_a_repository_that_was_renamed_or_transferred_is_known_by_its_id() -> None:
    check_owner(deployed(), shipment(repository("Codertocat", 3, "new-name", 7)))
    check_owner(deployed(), shipment(repository("somebody-else", 99, "Hello-World", 7)))


def test_a_repository_that_was_made_again_takes_its_functions_over() -> None:
    check_owner(deployed(), shipment(replace(REPOSITORY, id=8)))


@pytest.mark.parametrize(
    "again",
    [
        repository("Codertocat", 4, "Hello-World", 8),
        repository("Codertocat", 3, "hello-other", 8),
        repository("renamed", 4, "Hello-World", 8),
    ],
    ids=["the owner's name alone", "the owner alone", "the repository's name alone"],
)
def test_a_name_alone_takes_nothing_over(again: Repository) -> None:
    """Account names are recycled: whoever gets one later is somebody else."""
    assert "belongs to Codertocat/Hello-World" in refusal(deployed(), shipment(again))


def test_names_that_a_label_cannot_hold_are_told_apart_by_the_url() -> None:
    """A label has 63 characters, a repository's name up to 100."""
    one = repository("Codertocat", 3, "x" * 63 + "-one", 7)
    current = deployed(shipment(one))
    check_owner(current, shipment(replace(one, id=8)))
    other = repository("Codertocat", 3, "x" * 63 + "-two", 8)
    assert naming.label_value(other.name) == naming.label_value(one.name)
    assert "belongs to" in refusal(current, shipment(other))


def test_the_same_ids_of_another_scm_are_another_repository() -> None:
    assert "belongs to" in refusal(deployed(), shipment(scm="gitlab"))


A = repository("a", 1, "functions", 11)
A_B = repository("a-b", 2, "shop", 12)


@pytest.mark.parametrize(("first", "second"), [(A, A_B), (A_B, A)])
@pytest.mark.parametrize("private", ["none", "first", "second", "both"])
def test_owners_whose_names_clash_are_refused_in_both_directions(
    first: Repository, second: Repository, private: str
) -> None:
    """Flaw 3: owner `a` with function `b-c` overwrote owner `a-b`'s function `c`."""
    hidden = "a private repository of "
    first = replace(first, private=private in ("first", "both"))
    second = replace(second, private=private in ("second", "both"))
    function = {"a": "b-c", "a-b": "c"}
    theirs = replace(shipment(first), function=replace(SHIPMENT.function, name=function[first.owner.login]))
    ours = replace(shipment(second), function=replace(SHIPMENT.function, name=function[second.owner.login]))
    assert deployed(theirs).name == deployed(ours).name == "a-b-c"
    said = refusal(deployed(theirs), ours)
    shown = [f"{hidden}{each.owner.login}" if each.private else each.full_name for each in (first, second)]
    assert said == f"a-b-c belongs to {shown[0]}; {shown[1]} can't have a function of that name: rename it"


def test_what_is_not_known_to_be_public_is_not_named() -> None:
    theirs = shipment(repository("x", 4, "other", 9))
    for current in (relabelled(git_private=None), relabelled(git_private="1"), relabelled(git_private="")):
        assert "Hello-World" not in refusal(current, theirs)


@pytest.mark.parametrize(
    "labels", [None, {}, {"a": "b"}, {"role": "openfaas-system"}, {f"{CLOUD}git-cloud": "0"}]
)
def test_a_function_that_is_not_the_clouds_is_refused(labels: dict[str, str] | None) -> None:
    said = refusal(deployed(labels=labels), SHIPMENT, adopt_legacy=True)
    assert said.startswith(
        "codertocat-hello is there and is not the cloud's; Codertocat/Hello-World can't have"
    )


FIRST = {"Git-Cloud": "1", "Git-Owner": "codertocat", "Git-Repo": "hello-world", "Git-DeployTime": "1"}
LAST = {
    f"{CLOUD}git-cloud": "1",
    f"{CLOUD}git-owner": "Codertocat",
    f"{CLOUD}git-owner-id": "0",
    f"{CLOUD}git-repo": "Hello-World",
    f"{CLOUD}git-scm": "github",
    f"{CLOUD}git-private": "0",
}


@pytest.mark.parametrize("labels", [FIRST, LAST], ids=["first version", "last version"])
def test_the_originals_functions_are_taken_over_only_if_the_operator_wants_it(labels: dict[str, str]) -> None:
    current = deployed(labels=labels)
    assert "was deployed by OpenFaaS Cloud of 2018" in refusal(current, SHIPMENT)
    check_owner(current, SHIPMENT, adopt_legacy=True)
    for other in (
        shipment(repository("Codertocat", 3, "other", 7)),
        shipment(repository("mallory", 3, "Hello-World", 7)),
        shipment(scm="gitlab"),
        shipment(scm="local"),
    ):
        refusal(current, other, adopt_legacy=True)


def test_what_has_a_repositorys_id_is_not_the_originals() -> None:
    theirs = relabelled(git_repo_id="9", git_owner_id="9")
    assert "belongs to" in refusal(theirs, SHIPMENT, adopt_legacy=True)


TEXT = st.sampled_from(["", "0", "1", "3", "7", "8", "github", "gitlab", "Codertocat", "Hello-World"])
NAMES = [f"{CLOUD}git-{name}" for name in "cloud scm owner owner-id repo repo-id private".split()]


@given(st.dictionaries(st.sampled_from([*NAMES, "Git-Cloud", "Git-Owner", "Git-Repo"]), TEXT))
def test_whatever_the_labels_only_the_same_ids_or_a_repository_made_again_pass(
    labels: dict[str, str],
) -> None:
    current = Status(name="codertocat-hello", labels=labels)

    def label(name: str) -> str | None:
        return labels.get(f"{CLOUD}git-{name}")

    cloud = (label("cloud"), label("scm")) == ("1", "github")
    own = cloud and label("repo-id") == "7"
    again = cloud and bool(label("repo-id")) and (label("owner-id"), label("repo")) == ("3", "Hello-World")
    try:
        check_owner(current, SHIPMENT)
    except Refused:
        assert not own
        assert not again
    else:
        assert own or again
