"""Whose a deployed function is, and whether a repository may deploy over it. Pure.

Owned is what has the repository's (git-scm, git-repo-id). A name decides nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

from .sdk import naming
from .sdk.errors import Refused
from .sdk.gateway import Status
from .sdk.messages import Repository, Shipment

PREFIX = naming.CLOUD
# What the first OpenFaaS Cloud wrote, for GitHub alone: read, never written.
_FIRST = {"git-cloud": "Git-Cloud", "git-owner": "Git-Owner", "git-repo": "Git-Repo"}
_FIRST_SCM = "github"


def check_owner(current: Status | None, shipment: Shipment, *, adopt_legacy: bool = False) -> None:
    """Raise `Refused` unless the function is new, this repository's, or one that it takes over."""
    if current is None or _is_own(current, shipment):
        return
    if _is_made_again(current, shipment) or (adopt_legacy and _is_legacy_own(current, shipment)):
        return
    ours = _shown(shipment.repository)
    if is_legacy(current):
        raise Refused(
            f"{current.name} was deployed by OpenFaaS Cloud of 2018 for {_holder(current)}; {ours} can't "
            "have a function of that name, unless it is the same repository and adopt_legacy is set"
        )
    if _label(current, "git-cloud") != "1":
        raise Refused(
            f"{current.name} is there and is not the cloud's; {ours} can't have a function of that name: "
            "rename it"
        )
    raise Refused(
        f"{current.name} belongs to {_holder(current)}; {ours} can't have a function of that name: rename it"
    )


def is_legacy(current: Status) -> bool:
    """Whether it has the original's labels, which know no repository by its id."""
    return _legacy(current, "git-cloud") == "1" and not _label(current, "git-repo-id")


def _is_own(current: Status, shipment: Shipment) -> bool:
    return (
        _label(current, "git-cloud") == "1"
        and _label(current, "git-scm") == shipment.scm
        and _label(current, "git-repo-id") == str(shipment.repository.id)
    )


def _is_made_again(current: Status, shipment: Shipment) -> bool:
    """A repository that was deleted and made again: another id, but the same owner by id, and name."""
    repository = shipment.repository
    return (
        _label(current, "git-cloud") == "1"
        and bool(_label(current, "git-repo-id"))
        and _label(current, "git-scm") == shipment.scm
        and _label(current, "git-owner-id") == str(repository.owner.id)
        and _is_named(current, repository)
    )


def _is_named(current: Status, repository: Repository) -> bool:
    """A label holds 63 characters: where that says not all of the name, the URL must be the same too."""
    label = naming.label_value(repository.name)
    url = (current.annotations or {}).get(f"{PREFIX}git-repo-url", "")
    whole = label == repository.name and len(label) < naming.LABEL_LENGTH
    return _label(current, "git-repo") == label and (whole or url == repository.html_url)


def _is_legacy_own(current: Status, shipment: Shipment) -> bool:
    """By names, as the original knew nothing else; so the operator must want it."""
    repository = shipment.repository
    scm = _label(current, "git-scm") or _FIRST_SCM
    return (
        is_legacy(current)
        and scm == shipment.scm
        and _legacy(current, "git-owner").lower() == repository.owner.login.lower()
        and _legacy(current, "git-repo").lower() == repository.name.lower()
    )


def _holder(current: Status) -> str:
    """Whose it is, as another may know it: only what is known to be public is named."""
    owner = _legacy(current, "git-owner") or "?"
    public = _label(current, "git-private") == "0" or not _label(current, "git-cloud")
    repo = _legacy(current, "git-repo") or "?"
    return f"{owner}/{repo}" if public else f"a private repository of {owner}"


def _shown(repository: Repository) -> str:
    return f"a private repository of {repository.owner.login}" if repository.private else repository.full_name


def _legacy(current: Status, name: str) -> str:
    labels: Mapping[str, str] = current.labels or {}
    return _label(current, name) or labels.get(_FIRST[name], "")


def _label(current: Status, name: str) -> str:
    return (current.labels or {}).get(PREFIX + name, "")
