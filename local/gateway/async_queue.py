"""Calls that are made later: kept on disk until they have succeeded or failed for good.

A call is tried again with doubling pauses while its answer says that it may yet succeed. Attempts
are counted before the call, so that one that kills its worker ends too. What was being called when
the gateway stopped is called again: functions bear being called twice.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import aiohttp
import msgspec
from persistqueue import SQLiteAckQueue
from persistqueue.sqlackqueue import AckStatus
from yarl import URL

from sdk.errors import RETRIED

from .errors import GatewayError
from .proxy import CALL_ID, Proxy
from .settings import Settings

BODY_LIMIT = 256_000
_KEPT_ENDED = 100
_CLEAR_EVERY = 50

T = TypeVar("T")
log = logging.getLogger("gateway.queue")


class Call(msgspec.Struct, frozen=True):
    """One call of a function, as it was asked for, and how often it was tried.

    While one with a `key` is there, others with the same key are left out.
    """

    function: str
    target: str
    headers: Mapping[str, str]
    body: bytes = b""
    attempts: int = 0
    key: str = ""

    def __repr__(self) -> str:
        return f"<call of {self.function}, {len(self.body)} bytes, {self.attempts} attempts>"


class _Serializer:
    """How persist-queue writes a call; its default is pickle."""

    @staticmethod
    def dumps(call: Call) -> bytes:
        return msgspec.msgpack.encode(call)

    @staticmethod
    def loads(data: bytes) -> Call:
        return msgspec.msgpack.decode(data, type=Call)


@dataclass
class _Line:
    """The calls of one function: the ids that wait, and how many are worked on."""

    waiting: deque[int] = field(default_factory=deque)
    working: int = 0
    pausing: int = 0

    def __len__(self) -> int:
        return len(self.waiting) + self.working + self.pausing


class AsyncQueue:
    def __init__(self, proxy: Proxy, settings: Settings) -> None:
        self._proxy = proxy
        self._settings = settings
        self._store = SQLiteAckQueue(
            settings.queue_path, multithreading=True, serializer=_Serializer, auto_resume=True
        )
        # SQLite's connections are used by one thread, which `close` can wait for.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="queue")
        self._lines: dict[str, _Line] = defaultdict(_Line)
        self._keys: set[str] = set()
        self._work: set[asyncio.Task[None]] = set()
        self._ended = 0

    def load(self) -> None:
        """Take up what the last process left."""
        for row in self._store.queue():
            if int(row["status"]) < int(AckStatus.unack):
                self._lines[row["data"].function].waiting.append(row["id"])
                self._keys.add(row["data"].key)
        for name in list(self._lines):
            self._staff(name)

    async def close(self) -> None:
        for task in list(self._work):
            task.cancel()
        await asyncio.gather(*self._work, return_exceptions=True)
        await asyncio.to_thread(self._thread.shutdown)
        self._store.close()

    async def put(self, call: Call) -> None:
        """Keep the call; it is on disk once this returns. `GatewayError` 429 when too many wait."""
        if len(call.body) > BODY_LIMIT:
            raise GatewayError(
                500,
                f"Error queuing request: request body too large ({len(call.body)} bytes), "
                f"maximum: {BODY_LIMIT} bytes",
            )
        if len(self._lines.get(call.function, ())) >= self._settings.queue_limit:
            raise GatewayError(429, f"{self._settings.queue_limit} calls of {call.function} are waiting")
        unknown = [len(line) for name, line in self._lines.items() if not self._proxy.knows(name)]
        if not self._proxy.knows(call.function) and sum(unknown) >= self._settings.queue_unknown_limit:
            raise GatewayError(429, f"{sum(unknown)} calls of functions that are not there are waiting")
        if call.key and call.key in self._keys:
            return
        self._keys.add(call.key)
        try:
            number = await self._stored(self._store.put, call)
        except Exception:
            self._keys.discard(call.key)
            raise
        assert number is not None
        self._lines[call.function].waiting.append(number)
        self._staff(call.function)

    def _staff(self, name: str) -> None:
        """Work on what waits, with a bounded number of calls at once."""
        line = self._lines[name]
        while line.waiting and line.working < self._settings.queue_workers:
            line.working += 1
            task = asyncio.create_task(self._one(name, line.waiting.popleft()))
            self._work.add(task)
            task.add_done_callback(self._work.discard)

    async def _one(self, name: str, number: int) -> None:
        line = self._lines[name]
        try:
            pause = await self._try(number)
        except Exception:  # a full disk, say: the call is still there
            log.exception("a call of %s is put off", name)
            pause = self._settings.queue_backoff_limit
        line.working -= 1
        if pause is None:
            self._staff(name)
            if not line:
                self._lines.pop(name, None)
            return
        line.pausing += 1
        self._staff(name)
        await asyncio.sleep(pause)
        line.pausing -= 1
        line.waiting.append(number)
        self._staff(name)

    async def _try(self, number: int) -> float | None:
        """Make the call once; the pause before the next try, None if this was the last."""
        call: Call = await self._stored(self._store.get, id=number)
        call = msgspec.structs.replace(call, attempts=call.attempts + 1)
        await self._stored(self._store.update, call, id=number)
        status = await self._status(call)
        if status in RETRIED and call.attempts < self._settings.queue_attempts:
            backoff = float(self._settings.queue_backoff) * 2.0 ** (call.attempts - 1)
            return min(backoff, self._settings.queue_backoff_limit)
        # Before the call has ended on disk: were this to fail after it, the call would be made again.
        self._ended += 1
        if self._ended % _CLEAR_EVERY == 0:
            await self._stored(self._store.clear_acked_data, keep_latest=_KEPT_ENDED, clear_ack_failed=True)
        ended = self._store.ack if status < 400 else self._store.ack_failed
        await self._stored(ended, id=number)
        self._keys.discard(call.key)
        if status >= 400:
            log.error("%s of %s failed for good: %d", call.headers.get(CALL_ID), call.function, status)
        return None

    async def _stored(self, function: Callable[..., T], *arguments: Any, **named: Any) -> T:
        call = partial(function, *arguments, **named)
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)

    async def _status(self, call: Call) -> int:
        """The status that the function answers; 503 where it can't be reached."""
        try:
            target = URL(call.target, encoded=True)
            async with self._proxy.call(call.function, "POST", target, call.headers, call.body) as answer:
                await answer.read()
                return answer.status
        except GatewayError as error:
            log.warning("%s of %s: %s", call.headers.get(CALL_ID), call.function, error.text)
            return error.status if error.status in RETRIED else 503
        except (aiohttp.ClientError, asyncio.TimeoutError, OSError) as error:
            log.warning("%s of %s: %r", call.headers.get(CALL_ID), call.function, error)
            return 503
