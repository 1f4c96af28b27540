"""Pushes that another one has taken along.

A push that comes while another of its repository is on its way is told to come back. If that one then
leaves the cluster as the branch's head wants it, whatever came before it began has nothing left to do: each
of its looks at the head was later. What this process has forgotten is done again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Hashable
from dataclasses import dataclass, field

from cachetools import LRUCache

from .converge import Report
from .sdk.messages import Push
from .sdk.records import RERUN

_KEPT = 1000


@dataclass(frozen=True)
class _Done:
    """What was live by looks at the head that were all later than `began`, by time.monotonic."""

    began: float
    report: Report


@dataclass
class Along:
    _came: LRUCache[Hashable, float] = field(default_factory=lambda: LRUCache(_KEPT))
    _done: LRUCache[Hashable, _Done] = field(default_factory=lambda: LRUCache(_KEPT))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def taken(self, push: Push) -> Report | None:
        """What has become of the push, if one that began after it came has done all; else it is known now."""
        with self._lock:
            came = self._came.setdefault(_hint(push), time.monotonic())
            done = self._done.get(_branch(push))
        # Who asks for a re-run wants to see each function anew.
        if not done or done.began <= came or push.delivery.startswith(RERUN):
            return None
        self.forget(push)
        return Report(done.report.sha, done.report.outcome)

    def ended(self, push: Push, began: float, report: Report) -> None:
        """The push has ended; it looked at nothing before `began`."""
        self.forget(push)
        with self._lock:
            self._done.pop(_branch(push), None)
            if report.outcome == "ok":
                self._done[_branch(push)] = _Done(began, report)

    def forget(self, push: Push) -> None:
        """One of the same name that comes later, as by hand, is another one."""
        with self._lock:
            self._came.pop(_hint(push), None)


def _hint(push: Push) -> Hashable:
    """What it says: a delivery's id is not signed."""
    return push.delivery, push.after, _branch(push)


def _branch(push: Push) -> Hashable:
    """Where it looks, and whose: a push after a transfer is not taken along by one before."""
    return push.scm, push.repository, push.installation, push.ref
