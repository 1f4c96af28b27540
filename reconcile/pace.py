"""Who signs nothing is not let in often: a clock asks every few minutes."""

from __future__ import annotations

import time
from dataclasses import dataclass

SECONDS = 30


@dataclass
class Pace:
    _last: float | None = None

    def may(self) -> bool:
        """Whether the last one was let in a while ago; then this one is."""
        now = time.monotonic()
        if self._last is not None and now - self._last < SECONDS:
            return False
        self._last = now
        return True
