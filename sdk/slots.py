"""Who may work now: a bounded number of long calls, and one at a time for each key.

The template serves four threads in one process; a long call that finds no slot is told to come back
(`Busy`), so that there is always a thread for the next one to be told so.
"""

from __future__ import annotations

import threading
from collections.abc import Hashable, Iterator
from contextlib import contextmanager

from .errors import Busy


class Slots:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._taken = 0
        self._keys: set[Hashable] = set()

    @contextmanager
    def taken(self, limit: int, key: Hashable = None, *, busy: str = "") -> Iterator[None]:
        """Hold one of `limit` slots, and `key` alone; `busy` is said when the key is held."""
        with self.held(key, busy=busy):
            with self._lock:
                if self._taken >= limit:
                    raise Busy(f"{limit} long calls are being worked on", retry_after=2)
                self._taken += 1
            try:
                yield
            finally:
                with self._lock:
                    self._taken -= 1

    @contextmanager
    def held(self, key: Hashable, *, busy: str = "") -> Iterator[None]:
        """Hold `key` alone, for a part of a call that has its slot; None is nobody's."""
        with self._lock:
            if key is not None and key in self._keys:
                raise Busy(busy, retry_after=2)
            self._keys.add(key)
        try:
            yield
        finally:
            with self._lock:
                self._keys.discard(key)
