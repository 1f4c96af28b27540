"""Heads that failed, and when reconcile may try each again: after pauses that double, up to a day.

Kept in memory, and as far as it goes in a file. Where both are lost, a head is tried again sooner.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
from cachetools import LRUCache

from .sdk.errors import Busy, Unavailable
from .sdk.settings import Settings

_KEPT = 2000


class Resting(Unavailable):
    """The head failed a moment ago: nothing is tried."""


class Setback(msgspec.Struct, frozen=True):
    """The head `sha` failed so many `times`, last `at` (seconds since 1970)."""

    sha: str
    times: int
    at: float


@dataclass
class Setbacks:
    file: Path
    _known: LRUCache[str, Setback] | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def counted(self, repository: tuple[str, int], sha: str, settings: Settings) -> Iterator[None]:
        """A look at the head `sha`; `Resting` if it failed a moment ago.

        Counts as failed from the start, so that what ends this process counts too, until `forget`. One
        that only finds nobody free does not.
        """
        with self._lock:
            before = self._read().get(_key(repository))
        left = self.left(repository, sha, settings)
        if left:
            raise Resting(f"{sha[:10]} failed: it is tried again in {left:.0f} s", retry_after=int(left))
        self.failed(repository, sha)
        try:
            yield
        except Busy:
            with self._lock:
                self._write(_key(repository), before)
            raise

    def left(self, repository: tuple[str, int], sha: str, settings: Settings) -> float:
        """Seconds for which this head is better left alone; 0 for one that did not fail."""
        with self._lock:
            kept = self._read().get(_key(repository))
        if not kept or kept.sha != sha:
            return 0
        whole = pause(kept.times, settings)
        return min(max(0, kept.at + whole - time.time()), whole)  # whatever the clock does

    def failed(self, repository: tuple[str, int], sha: str) -> None:
        with self._lock:
            kept = self._read().get(_key(repository))
            times = kept.times + 1 if kept and kept.sha == sha else 1
            self._write(_key(repository), Setback(sha, times, time.time()))

    def forget(self, repository: tuple[str, int]) -> None:
        with self._lock:
            if _key(repository) in self._read():
                self._write(_key(repository), None)

    def _read(self) -> LRUCache[str, Setback]:
        if self._known is None:
            self._known = LRUCache(_KEPT)
            with suppress(OSError, msgspec.MsgspecError, UnicodeDecodeError):
                self._known.update(msgspec.json.decode(self.file.read_bytes(), type=dict[str, Setback]))
        return self._known

    def _write(self, key: str, setback: Setback | None) -> None:
        known = self._read()
        if setback:
            known[key] = setback
        else:
            known.pop(key, None)
        with suppress(OSError):
            new = self.file.with_suffix(".new")
            new.write_bytes(msgspec.json.encode(dict(known)))
            os.replace(new, self.file)  # noqa: PTH105 - so that a reader finds the old one or the new one


def pause(times: int, settings: Settings) -> float:
    """How long a head that failed so often is left alone."""
    return min(float(settings.retry_pause) * 2.0 ** min(times - 1, 60), settings.retry_pause_limit)


def _key(repository: tuple[str, int]) -> str:
    scm, number = repository
    return f"{scm}/{number}"
