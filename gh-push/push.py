"""Which of GitHub's events interest us, and what git-tar needs of them. Pure.

https://docs.github.com/en/webhooks/webhook-events-and-payloads#push
"""

from __future__ import annotations

from dataclasses import dataclass

from . import again, leaving
from .sdk.errors import Malformed
from .sdk.messages import NO_COMMIT, Installation, Left, Push, Repository, decode

BRANCH = "refs/heads/"


@dataclass(frozen=True)
class Ignored:
    """An event that is none of ours, and why."""

    reason: str


@dataclass(frozen=True)
class _PushEvent:
    """The fields of GitHub's push event that we read; it has many more."""

    ref: str
    before: str
    after: str
    repository: Repository
    deleted: bool = False
    installation: Installation | None = None


def interpret(
    body: bytes, event: str | None, delivery: str, *, scm: str, build_branch: str, app: str = ""
) -> Push | Left | Ignored:
    """What to do with a delivery whose signature is good; `app`: our GitHub App. Raises `Malformed`."""
    if not event:
        raise Malformed("the header X-GitHub-Event is missing")
    if event == "ping":
        return Ignored("pong")
    if event in leaving.EVENTS:
        left = leaving.interpret(event, body, delivery, scm=scm, build_branch=build_branch)
        return Ignored(left) if isinstance(left, str) else left
    if event in again.EVENTS:
        found = again.interpret(event, body, delivery, app=app, build_branch=build_branch)
        return Ignored(found) if isinstance(found, str) else found
    if event != "push":
        return Ignored(f"event {event} is not used here")
    push = decode(body, _PushEvent)
    if not push.ref.startswith(BRANCH):
        return Ignored(f"{push.ref} is not a branch")
    if push.ref != BRANCH + build_branch:
        return Ignored(f"branch {push.ref.removeprefix(BRANCH)} is not built: {build_branch} is")
    if push.deleted or push.after == NO_COMMIT:
        return Ignored(f"branch {build_branch} was deleted: what is deployed stays")
    return Push(
        scm=scm,
        delivery=delivery,
        ref=push.ref,
        before=push.before,
        after=push.after,
        repository=push.repository,
        installation=push.installation,
    )
