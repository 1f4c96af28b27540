"""Which deployed functions have left their repository. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .sdk import naming
from .sdk.errors import Refused, Unavailable
from .sdk.gateway import Status
from .sdk.messages import Asked, Collect, Held

PREFIX = naming.CLOUD
UNINSTALL = "uninstall"


def stale(functions: Iterable[Status], request: Collect, namespace: str = "") -> list[str]:
    """The names of what leaves one namespace, sorted."""
    return sorted(function.name for function in leaving(functions, request, namespace))


def leaving(functions: Iterable[Status], request: Collect, namespace: str = "") -> list[Status]:
    """This repository's functions in one namespace that `request` does not keep.

    Raises `Refused` for an empty list: absence deletes nothing. Only an uninstall, which says so twice,
    keeps nothing.
    """
    _check(request)
    keep = {f"{request.owner.lower()}-{name}" for name in request.functions}
    return [
        function
        for function in functions
        if is_owned(function, request)
        and namespace in ("", function.namespace)
        and naming.qualified(function.name, namespace) not in keep
        and naming.qualified(function.name, function.namespace) not in keep
    ]


def check_kept(live: Iterable[tuple[str, Status]], request: Collect) -> None:
    """Raise `Unavailable` unless all that stays is there as this repository's, by its namespace and name.

    So nothing goes before what replaces it is live, nor for a list that another push has overtaken.
    """
    there = {
        naming.qualified(function.name, space)
        for namespace, function in live
        for space in (namespace, function.namespace)
        if is_owned(function, request)
    }
    names = (f"{request.owner.lower()}-{name}" for name in request.functions)
    missing = sorted(name for name in names if name not in there)
    if missing:
        raise Unavailable(f"to stay, but not there: {', '.join(missing)}; nothing is deleted")


def check_limit(lost: Sequence[str], most: int) -> None:
    """Raise `Refused` for a mass deletion that the operator has not asked for."""
    if len(lost) > most:
        raise Refused(
            f"{len(lost)} functions would be deleted, {most} are allowed at once: nothing is deleted. If "
            f"they are to go, the operator sets delete_limit to {len(lost)}, or sends the request with "
            f'"limit": {len(lost)}'
        )


def is_moved(function: Status, request: Collect) -> bool:
    """Whether what it does goes on under the name of another owner, to whom the repository has gone."""
    before = (function.labels or {}).get(f"{PREFIX}git-owner", "").lower()
    name = function.name.removeprefix(f"{before}-")
    spaces = ("", function.namespace)
    return (
        bool(before)
        and before != request.owner.lower()
        and name != function.name
        and any(naming.qualified(name, space) in request.functions for space in spaces)
    )


def is_owned(function: Status, request: Collect) -> bool:
    """Whether the function is of the request's repository: by the repository's id, never by a name."""
    return _is_cloud(function, request.scm) and _label(function, "git-repo-id") == str(request.repo_id)


def held(functions: Iterable[Status], scm: str, asked: Asked) -> list[Held]:
    """The repositories that were asked for and have functions here, by their ids."""
    found: dict[int, list[Status]] = {}
    for function in functions:
        ids = _label(function, "git-repo-id"), _label(function, "git-owner-id")
        if not _is_cloud(function, scm) or not all(_is_id(text) for text in ids):
            continue
        repo, owner = map(int, ids)
        if repo in asked.repositories or (not asked.repositories and owner == asked.owner_id):
            found.setdefault(repo, []).append(function)
    return [_held(repo, functions) for repo, functions in sorted(found.items())]


def _held(repo: int, functions: Sequence[Status]) -> Held:
    first = functions[0]
    return Held(
        id=repo,
        name=_label(first, "git-repo"),
        owner=_label(first, "git-owner"),
        owner_id=int(_label(first, "git-owner-id")),
        functions=tuple(sorted(naming.qualified(each.name, each.namespace) for each in functions)),
    )


def _check(request: Collect) -> None:
    if request.repo_id <= 0:
        raise Refused("the request names no repository by its id: nothing is deleted")
    leaves = request.uninstall and request.reason == UNINSTALL
    if (request.uninstall or request.reason == UNINSTALL) and not (leaves and not request.functions):
        raise Refused(
            f'an uninstall has "uninstall": true, the reason "{UNINSTALL}" and no function to keep: this is '
            "none, and nothing is deleted"
        )
    if not (request.functions or leaves):
        raise Refused("the list of functions to keep is empty: nothing is deleted")


def _is_cloud(function: Status, scm: str) -> bool:
    return (
        _label(function, "git-cloud") == "1"
        and _label(function, "git-scm") == scm
        and function.name not in naming.RESERVED
    )


def _is_id(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 20


def _label(function: Status, name: str) -> str:
    return (function.labels or {}).get(PREFIX + name, "")
