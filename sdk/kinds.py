"""Types that msgspec reads into. It studies each at its first use, and crashes if two threads make it."""

from __future__ import annotations

import threading
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")
_lock = threading.Lock()
_studied: set[Any] = set()


def studied(kind: type[T]) -> type[T]:
    """`kind`, once msgspec has studied it: for whatever several threads may read."""
    with _lock:
        if kind not in _studied:
            msgspec.json.Decoder(kind)
            _studied.add(kind)
    return kind
