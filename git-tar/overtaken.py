"""Commits that the branch has left while they are shipped: what is not built yet need not be.

A pass that is cut short deploys less than it might. So of a repository at most two in a row are; the next one
ships all of its commit, whatever the branch does, and a busy repository still deploys.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace

from cachetools import LRUCache

from .sdk.errors import CloudError, Superseded

# How often a push that takes long looks whether it was overtaken; and how soon if another one has come.
WATCH_SECONDS, HINT_SECONDS = 5.0, 0.5
MOST_IN_A_ROW = 2


@dataclass
class Watch:
    """Whether the branch has moved on from `sha`; the server is asked every few seconds at most.

    `tell` ends what is being built of the commit. It is called again and again while the pass lasts: a build
    may begin a moment later, and a message may be lost.
    """

    head: Callable[[], str | None]
    sha: str
    tell: Callable[[], None]
    _asked: float = field(default_factory=time.monotonic)
    has_moved: bool = False
    has_hint: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def check(self) -> None:
        """Raise `Superseded` if it has moved."""
        if self.moved():
            raise Superseded("a newer commit was pushed")

    def moved(self) -> bool:
        with self._lock:
            pause = HINT_SECONDS if self.has_hint else WATCH_SECONDS
            if not self.has_moved and time.monotonic() - self._asked > pause:
                self.has_hint = False
                with suppress(CloudError):  # a server that does not answer is no newer commit
                    self.has_moved = self.head() != self.sha
                self._asked = time.monotonic()
            return self.has_moved

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Look also while all that ships only waits. Nothing is told once this has ended."""
        ended, telling = threading.Event(), threading.Lock()

        def look() -> None:
            while not ended.wait(min(HINT_SECONDS, WATCH_SECONDS)):
                if not self.moved():
                    continue
                with telling, suppress(CloudError):
                    if not ended.is_set():
                        self.tell()

        threading.Thread(target=look, daemon=True).start()  # not waited for: git may take its time
        try:
            yield
        finally:
            with telling:
                ended.set()


@dataclass
class Cuts:
    """How many passes in a row were cut short, by repository; what a restart forgets is cut once more."""

    _in_a_row: LRUCache[Hashable, int] = field(default_factory=lambda: LRUCache(1000))
    _watching: dict[Hashable, Watch] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def watched(self, repository: Hashable, watch: Watch) -> Iterator[Watch]:
        """The watch over one pass; where it is the pass's turn to ship all, one that sees nothing."""
        with self._lock:
            before = self._in_a_row.get(repository, 0)
        if before >= MOST_IN_A_ROW:
            yield replace(watch, head=lambda: watch.sha)
            self._count(repository, 0)
            return
        try:
            self._watching[repository] = watch
            with watch.watching():
                yield watch
        finally:
            del self._watching[repository]
            self._count(repository, before + 1 if watch.has_moved else 0)

    def hint(self, repository: Hashable) -> None:
        """Another push of the repository has come: it may have moved on."""
        if watch := self._watching.get(repository):
            watch.has_hint = True

    def _count(self, repository: Hashable, cuts: int) -> None:
        with self._lock:
            self._in_a_row[repository] = cuts
