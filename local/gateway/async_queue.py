"""Calls that are made later: kept on disk until they have succeeded, or failed for good and been seen.

A call is tried again with doubling pauses while its answer says that it may yet succeed. Attempts
are counted before the call, so that one that kills its worker ends too. What was being called when
the gateway stopped is called again: functions bear being called twice.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from msgspec.structs import replace

from sdk.errors import RETRIED

from . import failed_calls
from .callbacks import Callbacks, callback
from .errors import GatewayError
from .proxy import CALL_ID, Proxy
from .queue_answer import Answer
from .queue_calls import Caller
from .queue_disk import Disk
from .queue_entry import CALLBACKS, DELIVERY, FAILED, WAITING, WORKING, Entry
from .queue_line import Line, Try
from .queue_store import BODY_LIMIT, Call
from .settings import Settings
from .whole import whole

# Of the headers, what the list shows.
_SHOWN = (CALL_ID.lower(), DELIVERY.lower())
_TRIM_SECONDS = 3600
# What waits for its turn is asked when one has ended; by its own pause only if that is never seen here.
_TURNS_AHEAD = 3

log = logging.getLogger("gateway.queue")


class AsyncQueue:
    def __init__(self, proxy: Proxy, callbacks: Callbacks, settings: Settings) -> None:
        self._proxy = proxy
        self._caller = Caller(proxy, callbacks)
        self._settings = settings
        self._disk = Disk(settings.queue_path)
        self._store = self._disk.store
        self._entries: dict[int, Entry] = {}
        self._lines: dict[str, Line] = defaultdict(Line)
        self._work: set[asyncio.Task[None]] = set()

    def load(self) -> None:
        """Take up what the last process left."""
        self._store.remove_acked()
        for row in self._store.rows():
            entry = Entry.of(row.id, row.call, row.queued_at, failed=row.failed)
            self._entries[row.id] = entry
            if entry.state == WAITING:
                self._lines[entry.line].add(row.id, entry.repository)
        for name in list(self._lines):
            self._staff(name)
        self._spawn(self._trimming())

    async def close(self) -> None:
        for line in self._lines.values():
            line.close()
        for task in list(self._work):
            task.cancel()
        await asyncio.gather(*self._work, return_exceptions=True)
        await self._disk.close()

    def calls(self) -> Sequence[Mapping[str, Any]]:
        """What is worked on, what waits, and what failed for good; never a body or a header's value."""
        order = (WORKING, WAITING, FAILED)
        entries = sorted(self._entries.values(), key=lambda entry: (order.index(entry.state), entry.id))
        return [entry.shown() for entry in entries]

    @whole
    async def put(self, call: Call) -> None:
        """Keep the call; it is on disk once this returns. `GatewayError` 429 when too many wait."""
        if len(call.body) > BODY_LIMIT:
            raise GatewayError(
                500,
                f"Error queuing request: request body too large ({len(call.body)} bytes), "
                f"maximum: {BODY_LIMIT} bytes",
            )
        self._check_room(call.function)
        self._check_unknown(call.function)
        if call.key and any(entry.is_like(call) for entry in self._entries.values()):
            return
        await self._keep(call)

    @whole
    async def retry(self, number: int) -> None:
        """Make a failed call again, as if it were new; one that pauses is made now."""
        entry = self._entry(number)
        if entry.state == WAITING:
            self._resume(entry)
            return
        if not entry.can_be_retried:
            raise GatewayError(409, f"call {number} was refused, and is not kept: send it anew")
        self._check_room(entry.line)
        entry.state = WAITING  # for whoever asks for the same meanwhile
        try:
            call = await self._disk.asked(self._store.call, number)
            if call:
                call = replace(call, attempts=0, ended_at=0)
                await self._disk.asked(self._store.again, number, call)
        except GatewayError:
            entry.state = FAILED
            raise
        if number not in self._entries:
            raise GatewayError(404, f"there is no call {number}: it was just dropped")
        entry.attempts, entry.ended_at, entry.next_try = 0, 0, 0
        self._queue(entry)

    @whole
    async def drop(self, number: int) -> None:
        """Forget a call that waits or failed."""
        entry = self._entry(number)
        was_there = self._leave(entry)
        try:
            await self._disk.asked(self._store.remove, number)
        except GatewayError:
            if was_there:
                self._pause(entry, max(0, entry.next_try - time.time()), Try(entry.id, is_due=True))
            raise
        self._entries.pop(number, None)
        self._leave(entry)  # whoever had it made again meanwhile

    def _leave(self, entry: Entry) -> bool:
        was_there = self._lines[entry.line].leave(entry.id)
        self._staff(entry.line)
        return was_there

    async def _keep(self, call: Call) -> None:
        call = replace(call, size=len(call.body))
        number = await self._disk.asked(self._store.add, call)
        self._entries[number] = Entry.of(number, call, time.time())
        self._queue(self._entries[number])

    def _entry(self, number: int) -> Entry:
        entry = self._entries.get(number)
        if not entry:
            raise GatewayError(404, f"there is no call {number}")
        if entry.state == WORKING:
            raise GatewayError(409, f"call {number} is being made")
        return entry

    def _check_room(self, name: str) -> None:
        if len(self._lines.get(name, ())) >= self._settings.queue_limit:
            raise GatewayError(429, f"{self._settings.queue_limit} calls of {name} are waiting")

    def _check_unknown(self, name: str) -> None:
        """Of functions that are not there all lines are bounded together: anybody may invent one."""
        if self._knows(name):
            return
        like = [line for line in self._lines if line.endswith(CALLBACKS) == name.endswith(CALLBACKS)]
        unknown = sum(len(self._lines[line]) for line in like if not self._knows(line))
        if unknown >= self._settings.queue_unknown_limit:
            raise GatewayError(429, f"{unknown} calls of functions that are not there are waiting")

    def _knows(self, line: str) -> bool:
        return self._proxy.knows(line.removesuffix(CALLBACKS))

    def _queue(self, entry: Entry) -> None:
        self._lines[entry.line].add(entry.id, entry.repository)
        self._staff(entry.line)

    def _staff(self, name: str) -> None:
        """Work on what waits, with a bounded number of calls at once."""
        line = self._lines[name]
        while line.working < self._settings.queue_workers and (made := line.take()):
            entry = self._entries[made.id]
            entry.state = WORKING
            self._spawn(self._one(entry, line, made))
        if not line:
            del self._lines[name]

    async def _one(self, entry: Entry, line: Line, made: Try) -> None:
        try:
            pause = await self._try(entry, line, made)
        except Exception:  # a full disk, say: the call is still there
            log.exception("a call of %s is put off", entry.function)
            pause = self._settings.queue_backoff_limit
        if pause is not None:
            self._pause(entry, pause, made)
        line.over(made)
        self._staff(entry.line)

    def _pause(self, entry: Entry, seconds: float, told: Try) -> None:
        entry.state, entry.next_try = WAITING, time.time() + seconds
        timer = asyncio.get_running_loop().call_later(seconds, self._resume, entry)
        self._lines[entry.line].pause(entry.id, timer, told if entry.turns else None)

    def _resume(self, entry: Entry) -> None:
        self._lines[entry.line].resume(entry.id)
        self._staff(entry.line)

    async def _try(self, entry: Entry, line: Line, made: Try) -> float | None:
        """Make the call once; the pause before the next try, None if this was the last."""
        call = await self._disk.stored(self._store.call, entry.id)
        if call is None:  # it was dropped
            return None
        limit = self._settings.callback_attempts if call.is_callback else self._settings.queue_attempts
        if call.attempts >= limit:
            said = call.error or "the gateway stopped while it was being made"
            await self._fail(entry, call, Answer(call.status or 503, said))
            return None
        call = replace(call, attempts=call.attempts + 1, status=entry.status, error=entry.error)
        await self._disk.stored(self._store.change, entry.id, call)
        entry.attempts = call.attempts
        answer = await self._caller.make(call)
        entry.status, entry.error = answer.status, answer.said
        if answer.is_busy:  # it was not tried yet
            entry.turns += 1
            entry.attempts -= 1
            await self._disk.stored(self._store.change, entry.id, replace(call, attempts=entry.attempts))
            return self._backoff(entry.turns + _TURNS_AHEAD)
        entry.turns = 0
        line.has_room(made)
        self._staff(entry.line)
        if answer.status in RETRIED and call.attempts < limit:
            return self._backoff(call.attempts)
        if answer.is_good:
            await self._call_back(call, answer)
            await self._forget(entry)
        else:
            await self._fail(entry, call, answer)
        return None

    async def _forget(self, entry: Entry) -> None:
        await self._disk.stored(self._store.remove, entry.id)
        self._entries.pop(entry.id, None)

    async def _call_back(self, call: Call, answer: Answer) -> None:
        """Queue the callback that was asked for, before the call is forgotten: rather twice than never."""
        made = callback(call, answer)
        if made is None:
            return
        try:
            self._check_room(made.function + CALLBACKS)
            self._check_unknown(made.function + CALLBACKS)
            await self._keep(made)
        except GatewayError as error:
            log.warning("%s of %s: no callback: %s", call.headers.get(CALL_ID), call.function, error.text)

    def _backoff(self, times: int) -> float:
        pause = float(self._settings.queue_backoff) * 2.0 ** min(times - 1, 30)
        return min(pause, self._settings.queue_backoff_limit)

    async def _fail(self, entry: Entry, call: Call, answer: Answer) -> None:
        """Keep the call aside for the operator, and say so; a callback is only given up."""
        call = replace(call, status=answer.status, error=answer.said)
        if call.is_callback:
            said = (entry.call_id, call.function, call.attempts, call.status, call.error)
            log.warning("callback of %s of %s given up after %d attempts: %d %s", *said)
            await self._forget(entry)
            return
        await self._call_back(call, answer)
        kept = replace(call, ended_at=time.time())
        if not failed_calls.keeps_body(call.status, call.headers):
            shown = {name: text for name, text in call.headers.items() if name.lower() in _SHOWN}
            kept = replace(kept, body=b"", headers=shown, whole=False)
        await self._disk.stored(self._store.fail, entry.id, kept)
        self._entries[entry.id] = Entry.of(entry.id, kept, entry.queued_at, failed=True)
        alarm = failed_calls.alarm(call.function, call.status, call.headers)
        log.error(
            "%scall %d (%s) of %s failed for good after %d attempts: %d %s",
            *(alarm, entry.id, entry.call_id, call.function, call.attempts, call.status, call.error),
        )
        self._spawn(self._trim())

    async def _trimming(self) -> None:
        while True:
            await self._trim()
            await asyncio.sleep(_TRIM_SECONDS)

    async def _trim(self) -> None:
        """Of what failed, forget what is too old and too much."""
        gone = failed_calls.surplus(
            [entry for entry in self._entries.values() if entry.state == FAILED],
            is_there=self._proxy.knows,
            limit=self._settings.queue_failed_limit,
            limit_bytes=self._settings.queue_failed_mb * 1024**2,
            since=time.time() - self._settings.queue_failed_age,
        )
        with suppress(sqlite3.Error):  # a full disk: the next one will do
            for number in gone:
                if number in self._entries and self._entries[number].state == FAILED:
                    await self._disk.stored(self._store.remove, number)
                    self._entries.pop(number, None)

    def _spawn(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._work.add(task)
        task.add_done_callback(self._work.discard)
