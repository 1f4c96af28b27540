"""Wakes github-status for each stage record: by a thread of its own, which no stage waits for.

A message is a hint to look at the records of a commit. So it may be lost, late or twice, and while one waits
the next of the same push takes its place. Only the last word of a push must arrive: what does not go at once
is queued. https://docs.github.com/rest/checks is github-status's concern alone.
"""

from __future__ import annotations

import json
import re
import sys
import threading
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeAlias

from . import messages, secrets
from .errors import Busy, CloudError, Unavailable
from .gateway import Gateway
from .masking import masked
from .records import RECONCILE, Record, Subject
from .sessions import persistently
from .settings import Settings

RECEIVER = "github-status"
_SHA = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
# A call of github-status takes as long as GitHub does; a hint is tried for so long, its last word queued.
_CALL_SECONDS, _TRY_SECONDS, _QUEUE_SECONDS = 30, 5, 10
# More pushes at once that GitHub hears nothing of: then the oldest hints go.
_WAITING = 1000

Key: TypeAlias = tuple[str, int, str, str]


@dataclass(frozen=True)
class Told:
    """gh-push, git-tar, buildshiprun → github-status: what was just recorded of a repository's commit.

    `asked`: the commit that the delivery was sent for, if that is another one.
    """

    scm: str
    owner_id: int
    repo_id: int
    asked: str
    record: Record

    @property
    def key(self) -> Key:
        return self.scm, self.repo_id, self.record.delivery, self.record.sha


def tell(record: Record, subject: Subject) -> None:
    """A listener of records."""
    settings = Settings.read()
    if shows(subject.scm, settings) and is_commit(record.sha) and _matters(record):
        asked = subject.asked if is_commit(subject.asked) else ""
        MESSENGER.take(Told(subject.scm, subject.owner_id, subject.repo_id, asked, record))


def shows(scm: str, settings: Settings) -> bool:
    """Whether commits show what became of them: at GitHub, or where the local cloud plays its checks."""
    return settings.report_status and bool(settings.github_app_id) and scm in ("github", "local")


def is_commit(sha: str) -> bool:
    return bool(_SHA.fullmatch(sha)) and sha.strip("0") != ""


def _matters(record: Record) -> bool:
    """What nobody pushed for is told of once it has ended: it mends what GitHub shows."""
    return record.terminal or not record.delivery.startswith(RECONCILE)


@dataclass
class Messenger:
    """`waiting`: the newest hint of each push that was not sent yet; a last word is not replaced."""

    waiting: OrderedDict[Key, Told] = field(default_factory=OrderedDict)
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _thread: threading.Thread | None = None
    _sending: bool = False

    def take(self, told: Told) -> None:
        with self._changed:
            before = self.waiting.get(told.key)
            if before and before.record.terminal and not told.record.terminal:
                return
            self.waiting[told.key] = told
            while len(self.waiting) > _WAITING:
                _say(self.waiting.popitem(last=False)[1], "too many pushes wait for github-status")
            if not self._thread or not self._thread.is_alive():
                self._start()
            self._changed.notify_all()

    def _start(self) -> None:
        thread = threading.Thread(target=self._work, name="status", daemon=True)
        with suppress(RuntimeError):  # there may be no more threads: the next record tries again
            thread.start()
            self._thread = thread

    def idle(self, seconds: float) -> bool:
        """Wait until all is sent; whether it was, within `seconds`. For tests."""
        with self._changed:
            return self._changed.wait_for(lambda: not self.waiting and not self._sending, seconds)

    def _work(self) -> None:
        while True:
            with self._changed:
                self._sending = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: bool(self.waiting))
                told = self.waiting.popitem(last=False)[1]
                self._sending = True
            try:
                send(told, Settings.read())
            except Busy:
                pass  # with this very push, say: it is told of what there is
            except CloudError as error:
                _say(told, error.message)
            except Exception as error:  # the thread must live on
                _say(told, type(error).__name__)


def send(told: Told, settings: Settings) -> None:
    """Call github-status; leave a push's last word to the queue if it can't hear it now.

    Not by the queue at first: one that works on a call at a time has git-tar's, and would come to this one
    when all is over; nor should a slow GitHub hold up pushes there.
    """
    body = messages.seal(RECEIVER, told)
    headers = messages.headers(body, secrets.read("payload-secret", settings.secret_mount_path))
    gateway = Gateway(settings.gateway_url)
    try:
        persistently(lambda: gateway.invoke(RECEIVER, body, headers, _CALL_SECONDS), _TRY_SECONDS)
    except Unavailable:
        if not told.record.terminal:
            raise
        headers["X-GitHub-Delivery"] = told.record.delivery
        gateway.queue(RECEIVER, body, headers, _QUEUE_SECONDS)


def _say(told: Told, error: str) -> None:
    record = told.record
    what = f"{record.owner}/{record.repo}@{record.sha} {record.stage} {record.outcome}"
    print(f"status: not told of {what}: {json.dumps(masked(error))}", file=sys.stderr, flush=True)


MESSENGER = Messenger()
