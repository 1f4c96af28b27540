"""What GitHub says of repositories that left, or are elsewhere now. Pure.

X-GitHub-Event is not signed, and signed bodies of other events look alike (a label or a star that was
deleted), so a body must be its event's own through and through: it has no field that the event does not have.
Even then it is a hint, which git-tar acts on only if GitHub's API confirms it.

https://docs.github.com/en/webhooks/webhook-events-and-payloads#installation
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .sdk.errors import Malformed
from .sdk.messages import Departure, Installation, Left, Owner, Push, Repository, decode

_ALWAYS = frozenset("action enterprise installation organization sender".split())
# All fields of each event's body.
_FIELDS: Mapping[str, frozenset[str]] = {
    "installation": _ALWAYS | {"repositories", "requester"},
    "installation_repositories": _ALWAYS
    | {"repositories", "repositories_added", "repositories_removed", "repository_selection", "requester"},
    "repository": _ALWAYS | {"changes", "repository"},
}
EVENTS = frozenset(_FIELDS)

_INSTALLATION_ENDS = frozenset({"deleted", "suspend"})
# The labels of what is deployed have to follow.
_CHANGES = {"renamed": "repository", "transferred": "owner", "privatized": "", "publicized": ""}
# More ids are not worth a message: then all of the owner's are looked at.
_REPOSITORIES = 2_000


@dataclass(frozen=True)
class _Account:
    id: int
    login: str = ""


@dataclass(frozen=True)
class _Installed:
    id: int
    account: _Account


@dataclass(frozen=True)
class _InstallationEvent:
    action: str
    installation: _Installed


@dataclass(frozen=True)
class _Numbered:
    id: int


@dataclass(frozen=True)
class _RepositoriesEvent:
    action: str
    installation: _Installed
    repositories_removed: tuple[_Numbered, ...]


@dataclass(frozen=True)
class _RepositoryEvent:
    action: str
    repository: Repository
    changes: Mapping[str, Any] = field(default_factory=dict)
    installation: Installation | None = None


def interpret(event: str, body: bytes, delivery: str, *, scm: str, build_branch: str) -> Push | Left | str:
    """A hint for git-tar, or why there is none. Raises `Malformed` for the body of another event."""
    odd = sorted(set(decode(body, dict[str, Any])) - _FIELDS[event])
    if odd:
        raise Malformed(f"the body is no event {event}: that has no {odd[0]!r}")
    if event == "installation":
        found = _installation(decode(body, _InstallationEvent))
    elif event == "installation_repositories":
        found = _repositories(decode(body, _RepositoriesEvent))
    else:
        told = decode(body, _RepositoryEvent)
        if told.action in _CHANGES:
            return _moved(told, delivery, scm, build_branch)
        found = _deleted(told)
    return found if isinstance(found, str) else Left(scm, delivery, found)


def _installation(event: _InstallationEvent) -> Departure | str:
    if event.action not in _INSTALLATION_ENDS:
        return f"installation {event.action}: nothing leaves"
    return Departure(f"installation {event.action}", _owner(event.installation), event.installation.id)


def _repositories(event: _RepositoriesEvent) -> Departure | str:
    ids = tuple(repository.id for repository in event.repositories_removed)
    if event.action != "removed" or not ids:
        return f"installation_repositories {event.action}: nothing leaves"
    return Departure(
        "installation_repositories removed",
        _owner(event.installation),
        event.installation.id,
        ids if len(ids) <= _REPOSITORIES else (),
    )


def _deleted(event: _RepositoryEvent) -> Departure | str:
    if event.action != "deleted":
        return f"repository {event.action}: nothing leaves"
    repository, installation = event.repository, event.installation
    number = installation.id if installation else 0
    return Departure("repository deleted", repository.owner, number, (repository.id,))


def _moved(event: _RepositoryEvent, delivery: str, scm: str, build_branch: str) -> Push:
    """As good as a push: git-tar follows the repository by its id, and labels what it deploys anew."""
    change = _CHANGES[event.action]
    if change and not isinstance(event.changes.get(change), dict):
        raise Malformed(f"the body is no event repository {event.action}: it has no changes.{change}")
    ref = f"refs/heads/{build_branch}"
    return Push(scm, delivery, ref, "", "", event.repository, event.installation)


def _owner(installation: _Installed) -> Owner:
    return Owner(installation.account.login, installation.account.id)
