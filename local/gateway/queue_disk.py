"""The queue's store, used from the gateway's loop."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from .errors import GatewayError
from .queue_store import Store

T = TypeVar("T")


class Disk:
    """SQLite's connections are used by one thread, which `close` can wait for."""

    def __init__(self, path: str) -> None:
        self.store = Store(path)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="queue")

    async def close(self) -> None:
        await asyncio.to_thread(self._thread.shutdown)
        self.store.close()

    async def stored(self, function: Callable[..., T], *arguments: Any) -> T:
        """What one of the store's functions returns; `sqlite3.Error` when the disk is full, say."""
        call = partial(function, *arguments)
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)

    async def asked(self, function: Callable[..., T], *arguments: Any) -> T:
        """The same for a caller, who is told when the disk is full: `GatewayError` 503."""
        try:
            return await self.stored(function, *arguments)
        except sqlite3.Error as error:
            raise GatewayError(503, f"the queue can't be written: {error}") from None
