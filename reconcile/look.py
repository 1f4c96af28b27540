"""One look at all that is installed: git-tar is asked for some of it, garbage-collect for what is gone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from . import installed
from .github import App
from .installed import Key, Known, Listing
from .sdk import messages
from .sdk.errors import CloudError, Missing
from .sdk.gateway import Gateway, Status
from .sdk.messages import Reconcile
from .sdk.secrets import Keys
from .sdk.settings import Settings
from .sdk.whereabouts import whereabouts
from .turns import Looks, Turns

QUEUE_SECONDS = 5
# Each asks GitHub, and a mistake of GitHub's must not take everything at once.
GONE_AT_ONCE = 3


@dataclass
class Look:
    """`queued` and `uninstalled` are names, `left` is how many wait for their turn."""

    queued: list[str] = field(default_factory=list)
    uninstalled: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    left: int = 0

    def lines(self) -> list[str]:
        """For the log: what was done."""
        gone = [f"uninstalled {name}" for name in self.uninstalled]
        return [*gone, *(f"queued {name}" for name in self.queued)]


@dataclass(frozen=True)
class Reconciler:
    gateway: Gateway
    app: App
    settings: Settings
    keys: Keys
    looks: Looks
    suspects: Turns

    def look(self, asked: Reconcile | None) -> Look:
        """Queue what is due; for the operator who asks for it also what failed a moment ago."""
        functions = list(self._functions())
        there = installed.deployed(functions, self.settings)
        listing = self.app.listed()
        told = Look(problems=list(listing.problems))
        found = installed.current(installed.merged(there, listing))
        found = {key: known for key, known in found.items() if installed.readable(known, self.settings)}
        for known in self._due(found, there, asked, told):
            self._queue("git-tar", installed.push(known, self.settings, periodic=asked is None))
            told.queued.append(known.repository.full_name)
        if not (asked and asked.repository):
            suspects = installed.unlisted(there, listing)
            self._uninstall(self._few(suspects, functions, told), listing, told)
        return told

    def _due(
        self, found: Mapping[Key, Known], there: Mapping[Key, Known], asked: Reconcile | None, told: Look
    ) -> list[Known]:
        if asked and asked.repository:
            named = installed.named(found, asked.repository)
            if not named and not told.problems:
                raise Missing(
                    f"{asked.repository} is not installed here: nothing of it is deployed, and no GitHub "
                    "App lists it"
                )
            return named
        deployed, new = found.keys() & there.keys(), found.keys() - there.keys()
        keys = self.looks.next(deployed, new, self.settings.reconcile_repositories)
        told.left = len(found) - len(keys)
        return [found[key] for key in keys]

    def _few(
        self, suspects: Mapping[Key, Known], functions: Sequence[Status], told: Look
    ) -> Mapping[Key, Known]:
        """Those whose owner loses no more at once than the operator allows; as with an event."""
        most = self.settings.delete_limit
        lost = installed.lost(suspects, functions)
        told.problems += [
            f"owner {owner}: {number} functions would be deleted, {most} are allowed at once: nothing is "
            f"deleted. If they are to go, the operator sets delete_limit to {number}, or removes them: "
            "python -m local collect OWNER/REPO --uninstall --limit NUMBER"
            for owner, number in sorted(lost.items())
            if number > most
        ]
        return {key: known for key, known in suspects.items() if lost[known.repository.owner.id] <= most}

    def _uninstall(self, suspects: Mapping[Key, Known], listing: Listing, told: Look) -> None:
        for key in self.suspects.next(suspects.keys(), GONE_AT_ONCE):
            known = suspects[key]
            try:
                installation = listing.whole[known.repository.owner.id]
                if whereabouts(known.repository.id, installation, self.settings).gone:
                    self._queue("garbage-collect", installed.uninstall(known))
                    told.uninstalled.append(known.repository.full_name)
            except CloudError as error:  # it stays
                told.problems.append(f"repository {known.repository.id}: {error.message}")

    def _queue(self, receiver: str, message: object) -> None:
        body = messages.seal(receiver, message)
        Gateway(self.settings.gateway_url).queue(
            receiver, body, messages.headers(body, self.keys), QUEUE_SECONDS
        )

    def _functions(self) -> Iterator[Status]:
        """The functions of every namespace; the default one has a name too."""
        default = self.gateway.list()
        yield from default
        known = {function.namespace for function in default}
        for name in self.gateway.namespaces():
            if name not in known:
                yield from replace(self.gateway, namespace=name).list()
