"""What is done to its end, whether or not the caller waits for it."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_RUNNING: set[asyncio.Task[Any]] = set()


def whole(change: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, Awaitable[T]]:
    """A change that a caller who goes away does not cut in two: what the engine has begun, it ends."""

    @functools.wraps(change)
    async def shielded(*arguments: P.args, **named: P.kwargs) -> T:
        task = asyncio.create_task(change(*arguments, **named))
        _RUNNING.add(task)
        task.add_done_callback(_RUNNING.discard)
        return await asyncio.shield(task)

    return shielded
