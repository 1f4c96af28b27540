"""The functions and their generations: deploy, probe, switch, drain, and go back when it fails.

A deploy starts a new generation beside the one that serves. Calls go to the new one once it answers
its readiness path; the old one stays until the new one has lived through its probation, and takes
the calls back if it does not. Half of it is enough to be told as available: whoever waits for that
waits no longer than it takes to see one that dies after half a second. What was being done when the
gateway stopped is resumed from the labels of the services.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from weakref import WeakValueDictionary

import aiohttp
import msgspec
from yarl import URL

from .deployment import HEALTH_DELAY, Deployment
from .errors import GatewayError
from .secrets import Secrets
from .settings import Settings
from .swarm import CANDIDATE, FAILED, LIVE, RETIRED, Generation, Swarm, Task
from .whole import whole

PORT = 8080
READY_PATHS = ("/_/ready", "/_/health")
DEATHS = 2  # exits before a new version is given up: one may be bad luck
_LOOK_SECONDS = 0.1  # between two looks at the engine
_PROBE_SECONDS = 0.03  # between two questions to a task, which cost much less
_PROBE_TIMEOUT = aiohttp.ClientTimeout(total=2, sock_connect=0.5)
# What a replica is: ready for calls, there but not ready for them, or not to be connected to.
_READY, _BUSY, _ABSENT = "ready", "busy", "absent"
_ENGINE_SECONDS = 1  # before an engine that refused is asked again

log = logging.getLogger("gateway.functions")


@dataclass
class Function:
    """`wanted` was deployed last; `proven` is the newest version that lived through its probation."""

    wanted: Generation
    proven: Generation | None = None
    rollout: asyncio.Task[None] | None = field(default=None, repr=False)

    @property
    def serving(self) -> Generation | None:
        """What gets the calls: the wanted version as soon as it is ready, else the proven one."""
        return self.wanted if self.wanted.is_ready else self.proven

    @property
    def generations(self) -> list[Generation]:
        proven = [self.proven] if self.proven and self.proven is not self.wanted else []
        return [self.wanted, *proven]


class Functions:
    """The table of functions; every change of one function happens under its lock."""

    def __init__(self, swarm: Swarm, secrets: Secrets, http: aiohttp.ClientSession, settings: Settings):
        self._swarm = swarm
        self._secrets = secrets
        self._http = http
        self._settings = settings
        self._functions: dict[str, Function] = {}
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._background: set[asyncio.Task[None]] = set()

    async def load(self) -> None:
        """Take up what the services say: serve the newest proven version, go on with a candidate."""
        by_name: dict[str, list[Generation]] = {}
        tasks = await self._swarm.tasks()
        for generation in await self._swarm.generations():
            generation.is_ready = generation.state == LIVE
            # The engine may have ended them, when it was killed or stopped: a candidate is judged anew.
            ended = (task for task in tasks.get(generation.service_id, ()) if task.died)
            generation.forgiven = frozenset(task.id for task in ended)
            if generation.state == RETIRED:
                self._spawn(self._retire(generation))
            else:
                by_name.setdefault(generation.function, []).append(generation)
        for name, generations in by_name.items():
            generations.sort(key=lambda generation: generation.number)
            proven = [generation for generation in generations if generation.state == LIVE]
            function = Function(generations[-1], proven[-1] if proven else None)
            self._functions[name] = function
            for old in generations:
                if old not in function.generations:
                    self._spawn(self._retire(old))
            if function.wanted.state == CANDIDATE:
                function.rollout = self._spawn(self._roll_out(function))

    async def close(self) -> None:
        for task in list(self._background):
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)

    @whole
    async def create(self, deployment: Deployment) -> None:
        async with self._lock(deployment.service):
            await self._forget_removed(deployment.service)
            if deployment.service in self._functions:
                raise GatewayError(
                    400, f"unable to create function: {deployment.service}, error: already exists"
                )
            await self._start(deployment)

    @whole
    async def update(self, deployment: Deployment) -> None:
        async with self._lock(deployment.service):
            await self._forget_removed(deployment.service)
            function = self._get(deployment.service)
            if function.proven and deployment.runs_like(function.proven.deployment):
                await self._restore(function, function.proven, deployment)
            else:
                await self._start(deployment)

    @whole
    async def delete(self, name: str) -> None:
        """Remove every service of the function, then forget it: a delete that fails can be sent again."""
        async with self._lock(name):
            function = self._get(name)
            for generation in await self._swarm.generations(name):
                if generation.function == name:
                    await self._swarm.remove(generation)
            await _cancelled(function.rollout)
            del self._functions[name]

    @whole
    async def roll_secret(self, name: str) -> None:
        """Start new generations of the functions that use the secret `name`, which has a new value.

        One that can't be started keeps the old value, and keeps no other from the new one.
        """
        failed: list[str] = []
        for service in self.users_of_secret(name):
            async with self._lock(service):
                try:
                    if service in self._functions:
                        await self._start(self._functions[service].wanted.deployment)
                except GatewayError as error:
                    failed.append(f"{service} ({error.text})")
        if failed:
            raise GatewayError(500, f"secret {name} is set, but not yet read by {', '.join(failed)}")

    def users_of_secret(self, name: str) -> list[str]:
        wanted = (function.wanted.deployment for function in self._functions.values())
        return [deployment.service for deployment in wanted if name in (deployment.secrets or ())]

    def deployments(self) -> list[Deployment]:
        """What was deployed last of each function."""
        return [function.wanted.deployment for function in self._functions.values()]

    async def status(self, name: str) -> Mapping[str, Any] | None:
        function = self._functions.get(name)
        if not function:
            return None
        tasks = await self._swarm.tasks(function.wanted.service_id)
        return _status(function, tasks.get(function.wanted.service_id, []))

    async def statuses(self) -> list[Mapping[str, Any]]:
        tasks = await self._swarm.tasks()
        return [
            _status(function, tasks.get(function.wanted.service_id, []))
            for _, function in sorted(self._functions.items())
        ]

    def services(self, name: str) -> list[Generation]:
        """The function's generations, for whoever reads their logs."""
        function = self._functions.get(name)
        return function.generations if function else []

    async def tasks(self) -> Mapping[str, list[Task]]:
        """The tasks of all functions, by the id of their service."""
        return await self._swarm.tasks()

    @contextlib.contextmanager
    def route(self, name: str) -> Iterator[str]:
        """The base URL of the generation that serves; it is not removed while this is held."""
        function = self._functions.get(name)
        serving = function.serving if function else None
        if not serving:
            raise GatewayError(503, f"No endpoints available for: {name}.")
        serving.in_flight += 1
        try:
            yield f"http://{serving.service}:{PORT}"
        finally:
            serving.in_flight -= 1

    def _get(self, name: str) -> Function:
        if name not in self._functions:
            raise GatewayError(404, f"service {name} not found")
        return self._functions[name]

    def _lock(self, name: str) -> asyncio.Lock:
        lock = self._locks.get(name) or asyncio.Lock()
        self._locks[name] = lock
        return lock

    async def _forget_removed(self, name: str) -> None:
        """Services may have been removed behind our back, by `docker service rm`."""
        function = self._functions.get(name)
        if not function:
            return
        there = {generation.service_id for generation in await self._swarm.generations(name)}
        if function.proven and function.proven.service_id not in there:
            function.proven = None
        if function.wanted.service_id not in there:
            await _cancelled(function.rollout)
            if function.proven:
                function.wanted = function.proven
            else:
                del self._functions[name]

    async def _start(self, deployment: Deployment) -> None:
        """Start a new generation; one that was still being proven gives way to it."""
        await self._swarm.check_image(deployment.image)
        secrets = await self._secrets.resolve(deployment.secrets or ())
        function = self._functions.get(deployment.service)
        number = function.wanted.number + 1 if function else 1
        started = await self._swarm.create(deployment, number, secrets)
        if function:
            await self._give_way(function)
            function.wanted = started
        else:
            function = self._functions[deployment.service] = Function(started)
        function.rollout = self._spawn(self._roll_out(function))

    async def _restore(self, function: Function, proven: Generation, deployment: Deployment) -> None:
        """Deploy what runs already: only its labels and annotations change."""
        function.wanted.is_told = False
        await self._give_way(function)
        function.wanted = proven
        proven.deployment = deployment
        await self._swarm.mark(proven)

    async def _give_way(self, function: Function) -> None:
        """The wanted version is replaced before it was proven."""
        await _cancelled(function.rollout)
        if function.wanted.is_told and function.wanted is not function.proven:
            self._prove(function)  # nobody is shown the one before it again
        if function.wanted.is_ready and not function.proven:
            function.proven = function.wanted  # better than nothing, until the next one is ready
        if function.wanted is not function.proven:
            function.wanted.is_ready = False
            self._spawn(self._retire(function.wanted))

    async def _roll_out(self, function: Function) -> None:
        """Prove the wanted version; if it fails, the proven one goes on serving."""
        candidate = function.wanted
        try:
            deaths = await self._until_ready(candidate)
            candidate.is_ready = True
            await self._through_probation(candidate, deaths)
        except _GivenUp as failure:
            candidate.is_ready = candidate.is_told = False
            candidate.state, candidate.failure = FAILED, str(failure)
            log.warning("%s: generation %d failed: %s", candidate.function, candidate.number, failure)
            await _insist(partial(self._swarm.mark, replicas=0), candidate)
            return
        self._prove(function)

    def _prove(self, function: Function) -> None:
        """The wanted version has been proven: the one before it goes, once that is written down."""
        candidate, before = function.wanted, function.proven
        candidate.state, function.proven = LIVE, candidate
        log.info("%s: generation %d is live", candidate.function, candidate.number)

        async def write_down() -> None:
            await _insist(self._swarm.mark, candidate)
            if before:
                await self._retire(before)

        self._spawn(write_down())

    async def _until_ready(self, candidate: Generation) -> int:
        """Wait until all replicas answer; how many deaths that took."""
        delay = _seconds((candidate.deployment.annotations or {}).get(HEALTH_DELAY, ""))
        await asyncio.sleep(delay)
        end = time.monotonic() + self._settings.ready_timeout
        while time.monotonic() < end:
            tasks = await self._tasks(candidate)
            _check_deaths(tasks, DEATHS)
            look = time.monotonic() + _LOOK_SECONDS
            while time.monotonic() < look:
                if set(await self._answers(candidate, tasks)) == {_READY}:
                    return sum(task.died for task in tasks)
                await asyncio.sleep(_PROBE_SECONDS)
        raise _GivenUp(f"it was not ready within {self._settings.ready_timeout:g} s")

    async def _through_probation(self, candidate: Generation, deaths: int) -> None:
        """Watch the candidate for a while; Swarm goes on to report the `deaths` that are known already.

        Half way, what can still be connected to is told as available: Swarm is late to say what has died, and
        one that is busy with its first calls may be late to answer.
        """
        began = time.monotonic()
        while (lived := time.monotonic() - began) < self._settings.probation or not candidate.is_told:
            if lived > self._settings.probation + self._settings.ready_timeout:
                raise _GivenUp("it can't be reached any more")
            tasks = await self._tasks(candidate)
            _check_deaths(tasks, deaths + 1)
            if not candidate.is_told and lived >= self._settings.probation / 2:
                candidate.is_told = _ABSENT not in await self._answers(candidate, tasks)
            await asyncio.sleep(_LOOK_SECONDS)

    async def _tasks(self, generation: Generation) -> list[Task]:
        try:
            tasks = await self._swarm.tasks(generation.service_id)
        except GatewayError as error:
            log.warning("%s: %s", generation.function, error)  # the engine comes back
            return []
        found = tasks.get(generation.service_id, [])
        return [task for task in found if task.id not in generation.forgiven]

    async def _answers(self, candidate: Generation, tasks: list[Task]) -> list[str]:
        """What each of its replicas is: those that do not run yet are absent."""
        running = [task for task in tasks if task.running and task.address]
        missing = candidate.deployment.replicas - len(running)
        return [_ABSENT] * missing or [await self._answer(candidate, task) for task in running]

    async def _answer(self, candidate: Generation, task: Task) -> str:
        """Whether the task is ready; one without a readiness path is ready when it listens.

        The path is the author's, and the gateway reaches more than authors do: it is only ever a path.
        """
        paths = (candidate.deployment.health_path,) if candidate.deployment.health_path else READY_PATHS
        for path in paths:
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
        return _BUSY if candidate.deployment.health_path else _READY

    async def _retire(self, old: Generation) -> None:
        """Let the old generation finish its calls, then remove it; its label says so to the next gateway."""
        deadline = time.monotonic() + self._settings.drain_timeout
        old.state = RETIRED
        await _insist(self._swarm.mark, old)
        while old.in_flight and time.monotonic() < deadline:
            await asyncio.sleep(_LOOK_SECONDS)
        await _insist(self._swarm.remove, old)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(_logged(work))
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        task.add_done_callback(lambda _: work.close())  # one that was ended before it began
        return task


class _GivenUp(Exception):
    """A generation will not get ready, and why."""


def _check_deaths(tasks: list[Task], limit: int) -> None:
    dead = [task for task in tasks if task.died]
    if any(task.state == "rejected" for task in dead) or len(dead) >= limit:
        last = dead[0]
        code = "" if last.exit_code is None else f"exit status {last.exit_code}"
        raise _GivenUp(last.error or code or f"it ended ({last.state})")


def _status(function: Function, tasks: list[Task]) -> Mapping[str, Any]:
    """FunctionStatus of the wanted generation; replicas are available once it has lived for a while."""
    wanted = function.wanted
    rows: dict[str, Any] = msgspec.to_builtins(wanted.deployment)
    rows["name"] = rows.pop("service")
    running = sum(task.running for task in tasks)
    return {
        **rows,
        "namespace": "openfaas-fn",
        "labels": rows.get("labels") or {},
        "annotations": rows.get("annotations") or {},
        "replicas": wanted.deployment.replicas,
        **({"availableReplicas": running} if running and _is_available(wanted) else {}),
        **({"failure": wanted.failure} if wanted.state == FAILED else {}),
        "createdAt": wanted.created_at,
    }


def _is_available(generation: Generation) -> bool:
    return generation.is_told or generation.state == LIVE


def _seconds(text: str) -> float:
    """`initialDelay` as Kubernetes' probes have it: `30s`, or a number."""
    with contextlib.suppress(ValueError):
        return min(max(float(text.removesuffix("s")), 0), 60)
    return 0


async def _insist(change: Callable[[Generation], Awaitable[None]], generation: Generation) -> None:
    """Ask the engine until it has done it: nobody would come back for a generation that is left over."""
    while True:
        try:
            return await change(generation)
        except GatewayError as error:
            log.warning("%s: generation %d: %s", generation.function, generation.number, error)
            await asyncio.sleep(_ENGINE_SECONDS)


async def _cancelled(task: asyncio.Task[None] | None) -> None:
    if task and not task.done():
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def _logged(work: Coroutine[Any, Any, None]) -> None:
    try:
        await work
    except asyncio.CancelledError:
        raise
    except Exception:
        log.exception("a rollout ended badly")
