"""Changes that the engine is asked for until it has made them."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable

from .errors import GatewayError
from .swarm import Generation

_ENGINE_SECONDS = 1  # before an engine that refused is asked again

log = logging.getLogger("gateway.functions")


async def insist(
    change: Callable[[Generation], Awaitable[None]], generation: Generation, *, tries: int | None = None
) -> None:
    """Without `tries` for ever: nobody would come back for a generation that is left over.

    `GatewayError` when the last of `tries` failed.
    """
    for number in itertools.count(1):
        try:
            await change(generation)
            return
        except GatewayError as error:
            if number == tries:
                raise
            log.warning("%s: generation %d: %s", generation.function, generation.number, error)
            await asyncio.sleep(_ENGINE_SECONDS)
