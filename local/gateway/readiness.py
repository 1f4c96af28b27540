"""Whether a generation is ready for calls, and lives: its tasks are asked, and Swarm about them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time

import aiohttp
from yarl import URL

from .deployment import HEALTH_DELAY
from .errors import GatewayError
from .settings import Settings
from .swarm import Generation, Swarm, Task

PORT = 8080
READY_PATHS = ("/_/ready", "/_/health")
DEATHS = 2  # exits before a new version is given up: one may be bad luck
# Between two looks at the engine: for where its tasks are, and, once they run, for whether they died.
_LOOK_SECONDS, _WATCH_SECONDS = 0.1, 0.4
_PROBE_SECONDS = 0.03  # between two questions to a task, which cost much less
_PROBE_TIMEOUT = aiohttp.ClientTimeout(total=2, sock_connect=0.5)
_NO_IMAGE = "No such image"
# What a replica is: ready for calls, there but not ready for them, or not to be connected to.
_READY, _BUSY, _ABSENT = "ready", "busy", "absent"

log = logging.getLogger("gateway.functions")


class GivenUp(Exception):
    """A generation will not get ready, and why."""


class Readiness:
    def __init__(self, swarm: Swarm, http: aiohttp.ClientSession, settings: Settings) -> None:
        self._swarm = swarm
        self._http = http
        self._settings = settings

    async def until_ready(self, generation: Generation) -> None:
        """Wait until all replicas answer; `GivenUp` if they die or are not ready within `ready_timeout`."""
        delay = _seconds((generation.deployment.annotations or {}).get(HEALTH_DELAY, ""))
        await asyncio.sleep(delay)
        end = time.monotonic() + self._settings.ready_timeout
        while time.monotonic() < end:
            tasks = await self._tasks(generation)
            _check_deaths(tasks, DEATHS)
            look = time.monotonic() + (_WATCH_SECONDS if _all_run(generation, tasks) else _LOOK_SECONDS)
            while time.monotonic() < look:
                if set(await self._answers(generation, tasks)) == {_READY}:
                    return _forgive(generation, tasks)
                await asyncio.sleep(_PROBE_SECONDS)
        raise GivenUp(f"it was not ready within {self._settings.ready_timeout:g} s")

    async def through_probation(self, candidate: Generation) -> None:
        """Watch the candidate for a while: nothing of it may die any more.

        Half way, what can still be connected to is told as available: Swarm is late to say what has died, and
        one that is busy with its first calls may be late to answer.
        """
        began = time.monotonic()
        while (lived := time.monotonic() - began) < self._settings.probation or not candidate.is_told:
            if lived > self._settings.probation + self._settings.ready_timeout:
                raise GivenUp("it can't be reached any more")
            tasks = await self._tasks(candidate)
            _check_deaths(tasks, 1)
            if not candidate.is_told and lived >= self._settings.probation / 2:
                candidate.is_told = _ABSENT not in await self._answers(candidate, tasks)
            if candidate.is_told:
                candidate.settled.set()
            await asyncio.sleep(_LOOK_SECONDS)

    async def forgive(self, generation: Generation) -> None:
        """Whatever has died by now counts no more, though Swarm goes on to tell of it."""
        _forgive(generation, await self._tasks(generation))

    async def _tasks(self, generation: Generation) -> list[Task]:
        try:
            tasks = await self._swarm.tasks(generation.service_id)
        except GatewayError as error:
            log.warning("%s: %s", generation.function, error)  # the engine comes back
            return []
        found = tasks.get(generation.service_id, [])
        generation.forgiven &= {task.id for task in found}  # Swarm forgets the others, and so do we
        return [task for task in found if task.id not in generation.forgiven]

    async def _answers(self, generation: Generation, tasks: list[Task]) -> list[str]:
        """What each of its replicas is: those that do not run yet are absent."""
        running = _running(tasks)
        missing = generation.replicas - len(running)
        return [_ABSENT] * missing or [await self._answer(generation, task) for task in running]

    async def _answer(self, generation: Generation, task: Task) -> str:
        """Whether the task is ready; one without a readiness path is ready when it listens.

        The path is the author's, and the gateway reaches more than authors do: it is only ever a path.
        """
        given = generation.deployment.health_path
        for path in (given,) if given else READY_PATHS:
            path, _, query = path.partition("?")
            url = URL.build(scheme="http", host=task.address, port=PORT, path=path, query_string=query)
            try:
                async with self._http.get(url, timeout=_PROBE_TIMEOUT, allow_redirects=False) as response:
                    if response.status not in (404, 405):
                        return _READY if response.status < 300 else _BUSY
            except aiohttp.ConnectionTimeoutError:
                return _ABSENT
            except asyncio.TimeoutError:
                return _BUSY
            except (aiohttp.ClientError, OSError):
                return _ABSENT
        return _BUSY if given else _READY


def _running(tasks: list[Task]) -> list[Task]:
    """Those that can be asked."""
    return [task for task in tasks if task.running and task.address]


def _all_run(generation: Generation, tasks: list[Task]) -> bool:
    return len(_running(tasks)) >= generation.replicas


def _forgive(generation: Generation, tasks: list[Task]) -> None:
    generation.forgiven = generation.forgiven.union(task.id for task in tasks if task.died)


def _check_deaths(tasks: list[Task], limit: int) -> None:
    dead = [task for task in tasks if task.died]
    # What can't be started is given up at once. An image may be removed just before it is needed: the next
    # task fetches it again.
    hopeless = any(task.state == "rejected" and _NO_IMAGE not in task.error for task in dead)
    if hopeless or len(dead) >= limit:
        last = dead[0]
        code = "" if last.exit_code is None else f"exit status {last.exit_code}"
        raise GivenUp(last.error or code or f"it ended ({last.state})")


def _seconds(text: str) -> float:
    """`initialDelay` as Kubernetes' probes have it: `30s`, or a number."""
    with contextlib.suppress(ValueError):
        return min(max(float(text.removesuffix("s")), 0), 60)
    return 0
