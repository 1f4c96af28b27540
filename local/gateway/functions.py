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
from collections.abc import Collection, Coroutine, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from weakref import WeakValueDictionary

import aiohttp

from .deployment import Deployment
from .errors import GatewayError
from .insisting import insist
from .readiness import PORT, GivenUp, Readiness
from .scaling import Scaling
from .secrets import Secrets
from .settings import Settings
from .status import shown
from .swarm import CANDIDATE, FAILED, LIVE, RETIRED, Generation, Swarm, Task
from .whole import whole

_PROBATIONS = 2  # how long whoever scales a version waits for the end of its probation
_LOOK_SECONDS = 0.1  # between two looks at what still has calls to end

log = logging.getLogger("gateway.functions")


@dataclass
class Function:
    """`wanted` was deployed last; `proven` is the newest version that lived through its probation.

    `calls` counts those that ended, since the gateway started.
    """

    wanted: Generation
    proven: Generation | None = None
    rollout: asyncio.Task[None] | None = field(default=None, repr=False)
    calls: int = 0

    @property
    def serving(self) -> Generation | None:
        """What gets the calls: the wanted version as soon as it is ready, else the proven one.

        That one is not ready while it is scaled to 0.
        """
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
        self._settings = settings
        self._readiness = Readiness(swarm, http, settings)
        self._scaling = Scaling(swarm, self._readiness)
        self._functions: dict[str, Function] = {}
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._background: set[asyncio.Task[None]] = set()

    async def load(self) -> None:
        """Take up what the services say: serve the newest proven version, go on with a candidate."""
        by_name: dict[str, list[Generation]] = {}
        for generation in await self._swarm.generations():
            generation.is_ready = generation.state == LIVE and generation.replicas > 0
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
                await self._readiness.forgive(function.wanted)  # the engine may have ended them, with itself
                function.rollout = self._spawn(self._roll_out(function))

    async def close(self) -> None:
        await self._scaling.close()
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
    async def update(self, deployment: Deployment, over: Collection[str] = ()) -> None:
        """`over`: the tags of what it may replace; without any, whatever is there."""
        async with self._lock(deployment.service):
            await self._forget_removed(deployment.service)
            function = self._get(deployment.service)
            _check_tag(function, over)
            if function.proven and deployment.runs_like(function.proven.deployment):
                await self._restore(function, function.proven, deployment)
            else:
                await self._start(deployment)

    @whole
    async def delete(self, name: str, over: Collection[str] = ()) -> None:
        """Remove every service of the function, then forget it: a delete that fails can be sent again.

        `over`: as of `update`.
        """
        async with self._lock(name):
            function = self._get(name)
            _check_tag(function, over)
            for generation in await self._swarm.generations(name):
                if generation.function == name:
                    await self._swarm.remove(generation)
            await _cancelled(function.rollout)
            del self._functions[name]
            for generation in function.generations:
                generation.settled.set()
                await self._scaling.stop(generation)

    @whole
    async def scale(self, name: str, replicas: int) -> None:
        """Of what serves; a version that is on probation is waited for, one that is not ready yet is not."""
        function = self._get(name)
        if function.rollout and function.wanted.is_ready:
            await asyncio.wait({function.rollout}, timeout=_PROBATIONS * self._settings.probation)
        async with self._lock(name):
            await self._forget_removed(name)
            function = self._get(name)
            if function.wanted.state == CANDIDATE:
                raise GatewayError(409, f"a new version of {name} is not ready yet: scale it then")
            if not function.proven:
                raise GatewayError(409, f"{name} has failed: deploy another version")
            await self._scaling.scale(function.proven, replicas)

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

    async def status(self, name: str, wait: float = 0) -> Mapping[str, Any] | None:
        """What is shown of it: of a version that is starting once it has settled, or after `wait` seconds."""
        function = self._functions.get(name)
        if function and wait and _is_starting(function.wanted):
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(function.wanted.settled.wait(), wait)
            function = self._functions.get(name)
        if not function:
            return None
        tasks = await self._swarm.tasks(function.wanted.service_id)
        return shown(function.wanted, tasks.get(function.wanted.service_id, ()), function.calls)

    async def statuses(self) -> list[Mapping[str, Any]]:
        tasks = await self._swarm.tasks()
        return [
            shown(function.wanted, tasks.get(function.wanted.service_id, ()), function.calls)
            for _, function in sorted(self._functions.items())
        ]

    def end_waits(self) -> None:
        """Show now what there is."""
        for function in self._functions.values():
            function.wanted.settled.set()

    def count(self, name: str) -> None:
        """A call of the function has ended."""
        if function := self._functions.get(name):
            function.calls += 1

    async def awake(self, name: str) -> None:
        """Wait until what serves is ready: a call wakes what is scaled to 0; 503 if it does not wake."""
        while self._sleeps(name):
            async with self._lock(name):
                if not (sleeping := self._sleeps(name)):
                    return
                waking = self._scaling.wake(sleeping)
            await asyncio.wait({waking})
            if not waking.cancelled() and (failure := waking.result()):
                raise GatewayError(503, f"{name} does not wake: {failure}")

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

    def _sleeps(self, name: str) -> Generation | None:
        """What serves, if it is not ready to."""
        function = self._functions.get(name)
        serving = function.serving if function else None
        return serving if serving and not serving.is_ready else None

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
            function.wanted.settled.set()
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
        if proven.is_ready and proven.replicas == deployment.replicas:
            await self._swarm.mark(proven)
        else:  # it sleeps, or a call could not wake it
            await self._scaling.scale(proven, deployment.replicas)

    async def _give_way(self, function: Function) -> None:
        """The wanted version is replaced before it was proven."""
        await _cancelled(function.rollout)
        if function.wanted.is_told and function.wanted is not function.proven:
            self._prove(function)  # nobody is shown the one before it again
        if function.wanted.is_ready and not function.proven:
            function.proven = function.wanted  # better than nothing, until the next one is ready
        if function.wanted is not function.proven:
            function.wanted.is_ready = False
            function.wanted.settled.set()
            self._spawn(self._retire(function.wanted))

    async def _roll_out(self, function: Function) -> None:
        """Prove the wanted version; if it fails, the proven one goes on serving."""
        candidate = function.wanted
        try:
            await self._readiness.until_ready(candidate)
            candidate.is_ready = True
            await self._readiness.through_probation(candidate)
        except GivenUp as failure:
            candidate.is_ready = candidate.is_told = False
            candidate.state, candidate.failure = FAILED, str(failure)
            candidate.settled.set()
            log.warning("%s: generation %d failed: %s", candidate.function, candidate.number, failure)
            await insist(partial(self._swarm.mark, replicas=0), candidate)
            return
        self._prove(function)

    def _prove(self, function: Function) -> None:
        """The wanted version has been proven: the one before it goes, once that is written down."""
        candidate, before = function.wanted, function.proven
        candidate.state, function.proven = LIVE, candidate
        log.info("%s: generation %d is live", candidate.function, candidate.number)

        async def write_down() -> None:
            await insist(self._swarm.mark, candidate)
            if before:
                await self._retire(before)

        self._spawn(write_down())

    async def _retire(self, old: Generation) -> None:
        """Let the old generation finish its calls, then remove it; its label says so to the next gateway."""
        deadline = time.monotonic() + self._settings.drain_timeout
        old.state = RETIRED
        await self._scaling.stop(old)
        await insist(self._swarm.mark, old)
        while old.in_flight and time.monotonic() < deadline:
            await asyncio.sleep(_LOOK_SECONDS)
        await insist(self._swarm.remove, old)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(_logged(work))
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        task.add_done_callback(lambda _: work.close())  # one that was ended before it began
        return task


def _is_starting(generation: Generation) -> bool:
    return generation.state == CANDIDATE and not generation.is_told


def _check_tag(function: Function, over: Collection[str]) -> None:
    if over and function.wanted.deployment.etag not in over:
        raise GatewayError(412, f"{function.wanted.function} was deployed meanwhile: look again")


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
