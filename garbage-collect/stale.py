"""Which deployed functions have left their repository. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from .sdk import naming
from .sdk.errors import Refused
from .sdk.gateway import Status
from .sdk.messages import Collect

PREFIX = naming.CLOUD


def stale(functions: Iterable[Status], request: Collect, namespace: str = "") -> list[str]:
    """The names of this repository's functions in one namespace that `request` does not keep, sorted.

    Raises `Refused` for an empty list: absence deletes nothing.
    """
    if not request.functions:
        raise Refused("the list of functions to keep is empty: nothing is deleted")
    keep = {f"{request.owner.lower()}-{name}" for name in request.functions}
    return sorted(
        function.name
        for function in functions
        if is_owned(function, request)
        and namespace in ("", function.namespace)
        and naming.qualified(function.name, namespace) not in keep
        and naming.qualified(function.name, function.namespace) not in keep
    )


def is_owned(function: Status, request: Collect) -> bool:
    """Whether the function is of the request's repository: by the repository's id, never by a name."""
    labels = function.labels or {}
    return (
        labels.get(f"{PREFIX}git-cloud") == "1"
        and labels.get(f"{PREFIX}git-scm") == request.scm
        and labels.get(f"{PREFIX}git-repo-id") == str(request.repo_id)
        and function.name not in naming.RESERVED
    )
