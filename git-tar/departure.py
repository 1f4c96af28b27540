"""Repositories that may have left: what GitHub confirms, garbage-collect removes. The rest is followed.

An event is a hint here too. So whatever it says, and whoever sends it again, what decides is whether GitHub's
API knows the repository by its id now, and again after the last deletion.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from . import github
from .sdk import github_app, messages, records
from .sdk.errors import Busy, CloudError, Misconfigured, Refused, Unavailable, Upstream
from .sdk.gateway import Gateway
from .sdk.messages import Asked, Collect, Held, Inventory, Left, Push
from .sdk.records import Stage, Subject
from .sdk.secrets import Keys
from .sdk.settings import Settings
from .sdk.slots import Slots
from .sdk.whereabouts import Whereabouts, whereabouts

STAGE = "leave"
COLLECT_SECONDS = 35
QUEUE_SECONDS = 10
BUSY = "a push of this repository is on its way"
ANOTHER = "another departure is being looked at"


@dataclass(frozen=True)
class Outcome:
    """What became of one repository.

    `outcome`: removed, followed, skipped, refused, failed, misconfigured, busy or retry.
    """

    repository: int
    outcome: str
    removed: tuple[str, ...] = ()
    error: str = ""


@dataclass(frozen=True)
class Leaving:
    """One hint on its way. `deadline`: when this call must end, by time.monotonic."""

    left: Left
    settings: Settings
    keys: Keys
    tokens: github_app.Tokens
    slots: Slots
    deadline: float

    def work(self) -> list[Outcome]:
        """Every repository of the hint that has functions here; each is reported."""
        held = self._held()
        if not held:
            self._report(Subject(self.left.delivery, self.left.left.owner.login, "", ""), _NOTHING)
        if not github_app.is_app(self.left.scm, self.settings):
            return [self._told(each, _unconfirmed(each)) for each in held]
        found = [(each, self._whereabouts(each)) for each in held]
        allowed = self._allowed(found)
        return [self._told(each, self._ended(each, where, allowed)) for each, where in found]

    def _allowed(self, found: Sequence[tuple[Held, Whereabouts | CloudError]]) -> CloudError | None:
        """Why nothing may be deleted: it is too much, or might be with what GitHub has not answered yet."""
        gone = sum(len(each.functions) for each, where in found if _is_gone(where))
        unknown = sum(len(each.functions) for each, where in found if isinstance(where, CloudError))
        most = self.settings.delete_limit
        if gone > most:
            return Refused(_too_many(gone, self.settings))
        if gone + unknown > most:
            return Unavailable("GitHub has not answered for all repositories yet: nothing is deleted")
        return None

    def _held(self) -> Sequence[Held]:
        """The repositories of the hint that have functions here; the others cost no call of the API."""
        left = self.left.left
        asked = Inventory(self.left.scm, self.left.delivery, Asked(left.owner.id, left.repositories))
        return messages.decode(self._collector(asked), _Repositories).repositories

    def _whereabouts(self, held: Held) -> Whereabouts | CloudError:
        try:
            self._check_time()
            return whereabouts(held.id, self.left.left.installation, self.settings)
        except CloudError as error:
            return error

    def _ended(self, held: Held, where: Whereabouts | CloudError, allowed: CloudError | None) -> Outcome:
        try:
            if isinstance(where, CloudError):
                raise where
            if where.gone and allowed:
                raise allowed
            self._check_time()
            with self.slots.held((self.left.scm, held.id), busy=BUSY):
                return self._uninstall(held, where) if where.gone else self._follow(held, where)
        except Busy as error:
            return Outcome(held.id, "busy", error=error.message)
        except (Unavailable, Upstream) as error:
            return Outcome(held.id, "retry", error=error.message)
        except Misconfigured as error:
            return Outcome(held.id, "misconfigured", error=error.message)
        except CloudError as error:
            return Outcome(held.id, records.outcome_of(error), error=error.message)

    def _check_time(self) -> None:
        if time.monotonic() > self.deadline:
            raise Busy("there is much to look at: it goes on in a moment")

    def _uninstall(self, held: Held, where: Whereabouts) -> Outcome:
        collect = Collect(
            scm=self.left.scm,
            delivery=self.left.delivery,
            owner=held.owner,
            owner_id=held.owner_id,
            repo=held.name,
            repo_id=held.id,
            functions=(),
            sha="",
            reason="uninstall",
            uninstall=True,
        )
        removed = messages.decode(self._collector(collect), _Removed).removed
        now = whereabouts(held.id, self.left.left.installation, self.settings)
        if not now.gone:  # it came back meanwhile: what was deployed for it must not be lost
            return self._follow(held, now, removed)
        self.tokens.forget(self.left.left.installation, held.id)
        return Outcome(held.id, "removed", removed, where.gone)

    def _follow(self, held: Held, where: Whereabouts, removed: tuple[str, ...] = ()) -> Outcome:
        """It is still the App's: a push as good as any makes the cluster match it, wherever it is."""
        repository, _ = github.described(held.id, where.installation, self.tokens, self.settings)
        push = Push(
            scm=self.left.scm,
            delivery=str(uuid.uuid5(_NAMESPACE, f"{self.left.delivery}/{held.id}")),
            ref=f"refs/heads/{self.settings.build_branch}",
            before="",
            after="",
            repository=repository,
            installation=messages.Installation(where.installation),
        )
        body = messages.seal("git-tar", push)
        gateway = Gateway(self.settings.gateway_url)
        gateway.queue("git-tar", body, messages.headers(body, self.keys), QUEUE_SECONDS)
        return Outcome(held.id, "followed", removed, f"it is still there, as {repository.full_name}")

    def _collector(self, message: object) -> bytes:
        body = messages.seal("garbage-collect", message)
        gateway = Gateway(self.settings.gateway_url)
        headers = messages.headers(body, self.keys)
        return gateway.invoke("garbage-collect", body, headers, COLLECT_SECONDS)

    def _told(self, held: Held, outcome: Outcome) -> Outcome:
        self._report(Subject(self.left.delivery, held.owner, held.name, ""), outcome)
        return outcome

    def _report(self, subject: Subject, outcome: Outcome) -> None:
        log = [f"removed {name}" for name in outcome.removed]
        cause = self.left.left.cause
        told = Stage(_RECORDED.get(outcome.outcome, outcome.outcome), log)
        records.emit(STAGE, subject, "", told, 0, f"{cause}: {outcome.error}")


def _is_gone(where: Whereabouts | CloudError) -> bool:
    return isinstance(where, Whereabouts) and bool(where.gone)


def _unconfirmed(held: Held) -> Outcome:
    names = ", ".join(held.functions)
    return Outcome(
        held.id,
        "skipped",
        error="without a GitHub App (github_app_id) nobody can confirm it: nothing is deleted. To remove "
        f"{names} by hand: python -m local collect {held.owner}/{held.name} --uninstall, or faas-cli remove",
    )


def _too_many(number: int, settings: Settings) -> str:
    return (
        f"{number} functions would be deleted, {settings.delete_limit} are allowed at once: nothing is "
        f"deleted. If they are to go, the operator sets delete_limit to {number} and has GitHub deliver the "
        "event again, or removes them: python -m local collect OWNER/REPO --uninstall --limit NUMBER"
    )


_NAMESPACE = uuid.UUID("3b7a5a0e-5a53-4b5e-8d3c-0a1f8f1c7e55")
# The words that all stages' records share.
_RECORDED = {"removed": "ok", "followed": "unchanged", "busy": "retry", "misconfigured": "failed"}
_NOTHING = Outcome(0, "skipped", error="nothing of it is deployed")


@dataclass(frozen=True)
class _Repositories:
    """garbage-collect's answer to an inventory."""

    repositories: tuple[Held, ...]


@dataclass(frozen=True)
class _Removed:
    """garbage-collect's answer to a garbage request."""

    removed: tuple[str, ...] = ()
