"""Whole lines on stdout and stderr, by any number of threads, none of which waits for another's.

A lock that is held while a line is written makes threads queue: who has it comes back from the system and
waits for Python's own lock first. With eight clients that took a third of gh-push's pace.
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from typing import Literal

# More lines than these wait for a stream that takes none; then their writers do.
_WAITING = 1_000


class Lines:
    """Where lines go: `sys.stdout` or `sys.stderr`, whatever that is at the time."""

    def __init__(self, stream: Literal["stdout", "stderr"]) -> None:
        self._stream = stream
        self._lines: deque[str] = deque()
        self._writing = threading.Lock()

    def put(self, line: str) -> None:
        """Write `line`, and those that others leave meanwhile; or leave it to who is writing just now."""
        self._lines.append(line + "\n")
        # Again: somebody may have left a line after the last look, and before the lock was free.
        while self._lines and self._writing.acquire(blocking=len(self._lines) > _WAITING):
            try:
                while self._lines:
                    print(self._lines.popleft(), end="", file=getattr(sys, self._stream), flush=True)
            finally:
                self._writing.release()


STDOUT, STDERR = Lines("stdout"), Lines("stderr")
