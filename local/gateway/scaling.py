"""How many replicas of a version run. One that is scaled to 0 is woken by a call.

Swarm keeps the number with the service, so a restart of the gateway changes nothing.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from weakref import WeakKeyDictionary

import msgspec

from .deployment import REPLICAS_LIMIT, check_namespace, decode
from .errors import GatewayError
from .insisting import insist
from .readiness import GivenUp, Readiness
from .swarm import Generation, Swarm

_TRIES = 3  # another change of the same service may come between

log = logging.getLogger("gateway.functions")


class ScaleRequest(msgspec.Struct, rename="camel"):
    """ScaleServiceRequest. The name is in the path, too, and Kubernetes reads it there."""

    replicas: int
    service_name: str = ""
    namespace: str = ""


def parse(name: str, body: bytes) -> int:
    """The replicas that are wanted of function `name`: as many as there may be, if more are asked for."""
    try:
        wanted = decode(body, ScaleRequest)
    except GatewayError:
        raise GatewayError(400, "Error unmarshalling request body") from None
    if wanted.service_name not in ("", name):
        raise GatewayError(400, f"serviceName is {wanted.service_name}, but the path says {name}")
    check_namespace(wanted.namespace)
    if wanted.replicas < 0:
        raise GatewayError(400, "replicas must be 0 or more")
    return min(wanted.replicas, REPLICAS_LIMIT)


class Scaling:
    """Of proven generations: those that are still to be proven run as they were deployed."""

    def __init__(self, swarm: Swarm, readiness: Readiness) -> None:
        self._swarm = swarm
        self._readiness = readiness
        self._waking: WeakKeyDictionary[Generation, asyncio.Task[str]] = WeakKeyDictionary()

    async def scale(self, generation: Generation, replicas: int) -> None:
        """To `replicas`; what slept gets ready meanwhile. Under its function's lock."""
        await self.stop(generation)
        was_ready = generation.is_ready
        generation.is_ready = was_ready and replicas > 0  # first: no call goes to what is about to end
        try:
            await insist(partial(self._swarm.mark, replicas=replicas), generation, tries=_TRIES)
        except GatewayError:
            generation.is_ready = was_ready
            raise
        generation.replicas = replicas
        log.info("%s: generation %d has %d replicas", generation.function, generation.number, replicas)
        if replicas and not was_ready:
            self.wake(generation)

    def wake(self, generation: Generation) -> asyncio.Task[str]:
        """Get it ready; the task ends with why it is not. Begun under its function's lock."""
        waking = self._waking.get(generation)
        if not waking or waking.done():
            waking = self._waking[generation] = asyncio.create_task(self._get_ready(generation))
        return waking

    async def stop(self, generation: Generation) -> None:
        """It is no longer to be woken."""
        waking = self._waking.pop(generation, None)
        if waking:
            waking.cancel()
            await asyncio.gather(waking, return_exceptions=True)

    async def close(self) -> None:
        for generation in list(self._waking):
            await self.stop(generation)

    async def _get_ready(self, generation: Generation) -> str:
        try:
            await self._readiness.forgive(generation)
            if not generation.replicas:
                replicas = generation.deployment.replicas
                await insist(partial(self._swarm.mark, replicas=replicas), generation, tries=_TRIES)
                generation.replicas = replicas
            await self._readiness.until_ready(generation)
        except (GivenUp, GatewayError) as failure:
            log.warning("%s: it does not wake: %s", generation.function, failure)
            return str(failure)
        generation.is_ready = True
        log.info("%s: generation %d is awake", generation.function, generation.number)
        return ""
