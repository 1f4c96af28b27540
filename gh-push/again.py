"""The button "Re-run" of a check that is ours: as good as a push. Pure.

X-GitHub-Event is not signed, so the body must be its event's own through and through, as in leaving.py; and
the check must be our App's: GitHub tells of others', too, to whoever may read checks.

https://docs.github.com/en/webhooks/webhook-events-and-payloads#check_run
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .sdk.errors import Malformed
from .sdk.messages import NO_COMMIT, Installation, Push, Repository, decode
from .sdk.records import RERUN

_ALWAYS = frozenset("action enterprise installation organization repository sender".split())
_FIELDS: Mapping[str, frozenset[str]] = {
    "check_run": _ALWAYS | {"check_run", "requested_action"},
    "check_suite": _ALWAYS | {"check_suite", "actions_meta"},
}
EVENTS = frozenset(_FIELDS)


@dataclass(frozen=True)
class _App:
    id: int
    client_id: str = ""


@dataclass(frozen=True)
class _Suite:
    head_branch: str | None = None


@dataclass(frozen=True)
class _Check:
    """A run, or a suite of them: a run's branch is its suite's."""

    head_sha: str
    app: _App
    head_branch: str | None = None
    check_suite: _Suite = _Suite()

    @property
    def branch(self) -> str | None:
        return self.head_branch or self.check_suite.head_branch


@dataclass(frozen=True)
class _Event:
    action: str
    repository: Repository
    installation: Installation | None = None
    check_run: _Check | None = None
    check_suite: _Check | None = None


def interpret(event: str, body: bytes, delivery: str, *, app: str, build_branch: str) -> Push | str:
    """A hint for git-tar, or why there is none. Raises `Malformed` for the body of another event."""
    odd = sorted(set(decode(body, dict[str, Any])) - _FIELDS[event])
    if odd:
        raise Malformed(f"the body is no event {event}: that has no {odd[0]!r}")
    told = decode(body, _Event)
    check = told.check_run if event == "check_run" else told.check_suite
    if check is None:
        raise Malformed(f"the body is no event {event}: it has no {event}")
    if told.action != "rerequested":
        return f"{event} {told.action}: nobody asks for a push again"
    if not told.installation or not app or app not in (str(check.app.id), check.app.client_id):
        return f"{event} of another App"
    if check.branch not in (build_branch, None):
        return f"branch {check.branch} is not built: {build_branch} is"
    ref = f"refs/heads/{build_branch}"
    return Push(
        "github", RERUN + delivery, ref, NO_COMMIT, check.head_sha, told.repository, told.installation
    )
