"""Looks at the records of a commit, and has GitHub show what they say; then it looks again.

So it is with whatever comes late, twice or in another order, and where two replicas are at it: what is read
after the last write is what stays.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone

from cachetools import TTLCache

from . import boards, runs
from .boards import Api, Board, Checks, Statuses
from .runs import Change, Run
from .sdk import github_app, naming, records, secrets
from .sdk.builder import Builder
from .sdk.errors import Busy, CloudError, Failed, Misconfigured, Missing, Refused, Unavailable
from .sdk.gateway import Gateway
from .sdk.masking import masked
from .sdk.records import Record
from .sdk.settings import Settings
from .sdk.status import Told
from .sdk.whereabouts import covering

FOLLOWED = ("gh-push", "git-tar", "buildshiprun", "garbage-collect")
# A push takes as long, with what it waits for. Records before that are not read.
_BEFORE_SECONDS = 30 * 60
_LOG_SECONDS = 20
_ROUNDS = 4
# So long it is not asked again whether a permission was granted, or where the App is installed.
_REMEMBERED_SECONDS = 300
_REST_SECONDS = 10


@dataclass
class Memory:
    """What saves calls of GitHub's API; lost with the process, without harm."""

    tokens: github_app.Tokens = field(default_factory=github_app.Tokens)
    installations: TTLCache[int, int] = field(default_factory=lambda: TTLCache(1000, _REMEMBERED_SECONDS))
    without_checks: TTLCache[int, bool] = field(default_factory=lambda: TTLCache(1000, _REMEMBERED_SECONDS))
    _rests: TTLCache[int, float] = field(default_factory=lambda: TTLCache(1000, 3600))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def asked(self, installation: int) -> Iterator[None]:
        """A call of GitHub's, unless it said a moment ago that it wants to be left alone."""
        with self._lock:
            left = self._rests.get(installation, 0) - time.monotonic()
        if left > 0:
            raise Unavailable(f"GitHub wants to be left alone for {left:.0f} s", retry_after=int(left) + 1)
        try:
            yield
        except Busy:  # we are, not GitHub
            raise
        except Unavailable as error:
            with self._lock:
                self._rests[installation] = time.monotonic() + max(error.retry_after, _REST_SECONDS)
            raise

    def installation(self, repository: int, settings: Settings) -> int:
        with self._lock:
            found = self.installations.get(repository, 0)
        if not found:
            with self.asked(0):
                found = covering(repository, settings)
            if not found:
                raise Missing(f"the App is not installed for the repository {repository}")
            with self._lock:
                self.installations[repository] = found
        return found

    def may_check(self, installation: int) -> bool:
        """Whether the App may make check runs there, as far as is known."""
        with self._lock:
            return installation not in self.without_checks

    def may_not_check(self, installation: int) -> None:
        with self._lock:
            self.without_checks[installation] = True

    def forget(self, installation: int, repository: int) -> None:
        """It may not be as it was."""
        self.tokens.forget(installation, repository)
        with self._lock:
            self.installations.pop(repository, None)


@dataclass(frozen=True)
class Reporter:
    """`deadline`: when this call must end, by time.monotonic."""

    gateway: Gateway
    settings: Settings
    memory: Memory
    deadline: float

    def report(self, told: Told) -> Mapping[str, int]:
        """How many changes were made for each commit that the message is about."""
        shas = [told.record.sha]
        if told.asked and told.asked != told.record.sha and told.record.terminal:
            shas.append(told.asked)
        return {sha: self._report(told, sha) for sha in shas}

    def _report(self, told: Told, sha: str) -> int:
        installation = self.memory.installation(told.repo_id, self.settings)
        made, error = 0, CloudError("GitHub shows something else each time")
        for _ in range(_ROUNDS):
            wanted = self._wanted(told, sha)
            try:
                with self.memory.asked(installation):
                    changes = self._show(told, sha, wanted, installation)
            except (Failed, Misconfigured) as raised:  # a replica was first, or the App was installed anew
                self.memory.forget(installation, told.repo_id)
                if raised.message == error.message:
                    raise
                error = raised
                continue
            if not changes:
                return made
            made += len(changes)
        raise error

    def _wanted(self, told: Told, sha: str) -> Mapping[str, Run]:
        delivery = told.record.delivery
        found = runs.about([told.record, *self._records(told)], sha, delivery, told.asked)
        return runs.wanted(found, delivery)

    def _records(self, told: Told) -> Iterator[Record]:
        """The records of the repository, around the one that was told."""
        began = min(time.time(), told.record.time) - _BEFORE_SECONDS
        since = datetime.fromtimestamp(began, timezone.utc).isoformat(timespec="seconds")
        for name in FOLLOWED:
            for text in self.gateway.logs(name, since, follow=False, read_seconds=_LOG_SECONDS):
                record = records.parse(text)
                if record and (record.owner, record.repo) == (told.record.owner, told.record.repo):
                    yield record

    def _show(self, told: Told, sha: str, wanted: Mapping[str, Run], installation: int) -> Sequence[Change]:
        """What was changed: check runs, or commit statuses where the App may not do that."""
        if self.memory.may_check(installation):
            try:
                return self._on(Checks(self._api(told, installation, Checks.permission)), told, sha, wanted)
            except Refused:
                pass
        changes = self._on(Statuses(self._api(told, installation, Statuses.permission)), told, sha, wanted)
        self.memory.may_not_check(installation)
        return changes

    def _on(self, board: Board, told: Told, sha: str, wanted: Mapping[str, Run]) -> Sequence[Change]:
        fitted = {name: board.fitted(run) for name, run in wanted.items()}
        every_attempt = runs.mends(told.record.delivery)
        changes = runs.plan(fitted, board.shown(sha), every_attempt=every_attempt)
        for change in changes:
            if time.monotonic() > self.deadline:
                raise Busy("there is much to show: it goes on in a moment")
            if board.has_text and change.run.built:
                change = replace(change, run=replace(change.run, log=self._log(told, sha, change.run)))
            board.make(sha, change)
        return changes

    def _api(self, told: Told, installation: int, permission: str) -> Api:
        token = self.memory.tokens.token(installation, told.repo_id, self.settings, permission)
        return Api(boards.repository_path(told.record.owner, told.record.repo), token, self.settings)

    def _log(self, told: Told, sha: str, run: Run) -> tuple[str, ...]:
        """The build's log that of-builder keeps; what the record has of it if that can't be read."""
        keys = secrets.read("builder-readers", self.settings.secret_mount_path)
        repository = naming.image_repository(
            self.settings.push_repository_url, told.scm, told.owner_id, told.repo_id, run.built
        )
        try:
            kept = Builder(self.settings.builder_url, keys).log(repository, tag=sha)
        except CloudError as error:
            return (*run.log, f"(the whole log can't be read: {error.message})")
        return (masked(kept.text),) if kept else run.log
