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
        self._changed = threading.Condition()
        self._taken = 0
        self._keys: set[Hashable] = set()

    @contextmanager
    def taken(
        self, limit: int, key: Hashable = None, *, busy: str = "", seconds: float = 0
    ) -> Iterator[None]:
        """Hold one of `limit` slots, and `key` alone; `busy` is said when the key is held.

        It waits up to `seconds` for a slot, and never for a key.
        """
        with self.held(key, busy=busy):
            with self._changed:
                if not self._changed.wait_for(lambda: self._taken < limit, max(0, seconds)):
                    raise Busy(f"{limit} long calls are being worked on", retry_after=2)
                self._taken += 1
            try:
                yield
            finally:
                with self._changed:
                    self._taken -= 1
                    self._changed.notify_all()

    @contextmanager
    def held(self, key: Hashable, *, busy: str = "") -> Iterator[None]:
        """Hold `key` alone, for a part of a call that has its slot; None is nobody's."""
        with self._changed:
            if key is not None and key in self._keys:
                raise Busy(busy, retry_after=2)
            self._keys.add(key)
        try:
            yield
        finally:
            with self._changed:
                self._keys.discard(key)
