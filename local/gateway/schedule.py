"""Calls by the clock, as OpenFaaS's cron-connector makes them: `topic: cron-function` and `schedule`.

A due call goes into the queue, once, and not while the one before is still there. Ticks that were missed are
not made up for. Times are UTC.
https://docs.openfaas.com/reference/cron
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import datetime, timedelta, timezone

from cronsim import CronSim, CronSimError

from .deployment import Deployment
from .errors import GatewayError
from .proxy import CALL_ID
from .queue_store import Call

TOPIC, SCHEDULE = "topic", "schedule"
CRON = "cron-function"
_MINUTE = timedelta(minutes=1)
_DESCRIPTORS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}

log = logging.getLogger("gateway.schedule")


class Schedule:
    def __init__(
        self,
        functions: Callable[[], Iterable[Deployment]],
        put: Callable[[Call], Awaitable[None]],
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._functions = functions
        self._put = put
        self._clock = clock
        self._sleep = sleep
        self._told: Mapping[str, str] = {}

    async def run(self) -> None:
        """At the beginning of every minute, call what is due in it."""
        before = self._minute()
        while True:
            now = self._clock()
            await self._sleep(60 - now % 60)
            minute = self._minute()
            if minute > before:  # the clock may have been set back, or we woke up early
                await self._call(minute)
                before = minute

    async def _call(self, minute: datetime) -> None:
        wrong: dict[str, str] = {}
        for deployment in list(self._functions()):
            expression = cron(deployment.annotations or {})
            if expression is None:
                continue
            try:
                if is_due(expression, minute):
                    await self._put(call(deployment.service))
            except CronSimError as error:
                wrong[deployment.service] = f"schedule {expression!r} is none: {error}"
            except GatewayError as error:
                wrong[deployment.service] = f"it is not called: {error.text}"
            except Exception as error:  # a full disk, say: the next minute comes
                wrong[deployment.service] = f"it is not called: {error!r}"
        for name, said in wrong.items():
            if self._told.get(name) != said:
                log.warning("%s: %s", name, said)
        self._told = wrong

    def _minute(self) -> datetime:
        return datetime.fromtimestamp(self._clock() // 60 * 60, timezone.utc)


def cron(annotations: Mapping[str, str]) -> str | None:
    """The cron expression of a function that is called by the clock."""
    if annotations.get(TOPIC) != CRON:
        return None
    said = annotations.get(SCHEDULE, "").strip()
    return _DESCRIPTORS.get(said, said)


def is_due(expression: str, minute: datetime) -> bool:
    """Whether the expression means this minute; `CronSimError` if it is none."""
    if len(expression.split()) != 5:
        raise CronSimError("five fields are needed, or a word such as @hourly")
    return next(CronSim(expression, minute - _MINUTE), None) == minute


def call(name: str) -> Call:
    return Call(name, "/", {CALL_ID: str(uuid.uuid4())}, key=f"schedule/{name}")
