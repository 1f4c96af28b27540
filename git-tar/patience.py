"""For how long pushes have been failing. A push that only waits for its turn does not fail."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

from cachetools import LRUCache

from .sdk.errors import Busy, Unavailable, Upstream


@dataclass
class Patience:
    _since: LRUCache[str, float] = field(default_factory=lambda: LRUCache(1000))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def lost_since(self, delivery: str, error: Exception) -> float:
        """Seconds since the delivery first failed with what may work later; 0 if this is no such failure."""
        if isinstance(error, Busy) or not isinstance(error, (Unavailable, Upstream)):
            return 0
        with self._lock:
            return time.monotonic() - self._since.setdefault(delivery, time.monotonic())

    def forget(self, delivery: str) -> None:
        """The delivery has ended: one of the same name begins anew."""
        with self._lock:
            self._since.pop(delivery, None)
