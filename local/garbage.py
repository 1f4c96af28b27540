"""What the operator has garbage-collect do by hand."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sdk import messages, naming, secrets
from sdk.gateway import Status
from sdk.messages import Collect

from .errors import CommandError
from .state import State

COLLECT_SECONDS = 120


@dataclass(frozen=True)
class Repository:
    """A repository as the labels of its functions name it."""

    scm: str
    owner: str
    owner_id: int
    name: str
    id: int


def collect(
    full_name: str, keep: Sequence[str], state: State, *, dry_run: bool, limit: int | None
) -> Iterator[str]:
    """Delete what is not in `keep`, all if that is empty; yields what was done, a line for each function."""
    repository = find(state.gateway.list(), full_name)
    request = Collect(
        scm=repository.scm,
        delivery=f"by-hand-{uuid.uuid4()}",
        owner=repository.owner,
        owner_id=repository.owner_id,
        repo=repository.name,
        repo_id=repository.id,
        functions=tuple(keep),
        sha="",
        reason="push" if keep else "uninstall",
        uninstall=not keep,
        dry_run=dry_run,
        limit=limit,
    )
    body = messages.seal("garbage-collect", request)
    headers = messages.headers(body, secrets.read("payload-secret", str(state.secrets_folder)))
    told = messages.decode(state.gateway.invoke("garbage-collect", body, headers, COLLECT_SECONDS), _Answer)
    yield from (f"removed {name}" for name in told.removed)
    yield from (f"would remove {name}" for name in told.would_remove)
    if told.refused:
        yield f"but it would be refused: {told.refused}"
    if not (told.removed or told.would_remove):
        yield "there is nothing to remove"


def find(functions: Sequence[Status], full_name: str) -> Repository:
    """The one repository of that name; ids decide, so two of one name are told apart by hand."""
    found = {each for each in map(_repository, functions) if each and _is_named(each, full_name)}
    if not found:
        raise CommandError(f"no function is of {full_name}: see `python -m local status`")
    if len(found) > 1:
        ids = ", ".join(str(each.id) for each in sorted(found, key=lambda each: each.id))
        raise CommandError(f"functions of several repositories are labelled {full_name} (ids {ids})")
    return found.pop()


def _is_named(repository: Repository, full_name: str) -> bool:
    return f"{repository.owner}/{repository.name}".lower() == full_name.lower()


def _repository(function: Status) -> Repository | None:
    labels = {
        name.removeprefix(f"{naming.CLOUD}git-"): text for name, text in (function.labels or {}).items()
    }
    try:
        return Repository(
            labels["scm"], labels["owner"], int(labels["owner-id"]), labels["repo"], int(labels["repo-id"])
        )
    except (KeyError, ValueError):
        return None


@dataclass(frozen=True)
class _Answer:
    removed: tuple[str, ...] = ()
    would_remove: tuple[str, ...] = ()
    refused: str = ""
