"""Builds that run: any number of requests may follow one, and it ends when the last of them goes away.

A request also goes away when what it wants is overtaken: nobody needs that image any more.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Hashable
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass

from sdk.builder import Line
from sdk.errors import Superseded
from sdk.registry import Reference

from .kept import Log
from .tarball import Job

# What a request that joins late is told of the past, at most; a short line costs much more than its text.
KEPT_BYTES = 8 * 1024**2
_LINE_BYTES = 64
OVERTAKEN = Line(
    status="failed",
    error="a newer commit was pushed: what this was built for is overtaken",
    code=Superseded.code,
    reason=Superseded.code,
)


@dataclass(eq=False)
class Follower:
    """A request that waits for `image`."""

    image: Reference
    is_overtaken: bool = False


class Running:
    """A build as a task of its own, the lines that it has said, and its log."""

    def __init__(self, job: Job, tags: set[str], log: Log, lines: AsyncGenerator[Line, None]) -> None:
        self.job = job
        self.tags = tags  # of the image, also those of who joined: the log is kept for each
        self.log = log
        self._lines: deque[Line] = deque()
        self._kept = 0
        self._said = 0
        self._moved = asyncio.Event()
        self._followers: list[Follower] = []
        self._is_left = False
        self.task = asyncio.create_task(self._run(lines))

    @property
    def has_ended(self) -> bool:
        """Whether the last line is said; its log may still be on its way to the registry."""
        return bool(self._lines) and self._lines[-1].status != "in_progress"

    @property
    def can_be_joined(self) -> bool:
        return not (self.task.done() or self.has_ended or self._is_left)

    @asynccontextmanager
    async def follow(self, image: Reference) -> AsyncIterator[AsyncGenerator[Line, None]]:
        """All lines, from the first that is still known; the last one who leaves ends the build."""
        follower = Follower(image)
        self._followers.append(follower)
        lines = self._follow(follower)
        try:
            async with aclosing(lines):
                yield lines
        finally:
            self._followers.remove(follower)
            if not (self._followers or self.has_ended):
                self._is_left = True
                self.task.cancel()
                with suppress(asyncio.CancelledError):
                    await asyncio.shield(self.task)

    def overtake(self, below: Reference) -> int:
        """Let those go who wait for an image with the tag of `below`, in or below its repository."""
        going = [follower for follower in self._followers if _is_below(follower.image, below)]
        for follower in going:
            follower.is_overtaken = True
        self._wake()
        return len(going)

    async def _follow(self, follower: Follower) -> AsyncGenerator[Line, None]:
        at = 0
        while True:
            if follower.is_overtaken and not self.has_ended:
                yield OVERTAKEN
                return
            moved = self._moved
            at = max(at, self._said - len(self._lines))
            for line in [self._lines[back] for back in range(at - self._said, 0)]:
                at += 1
                yield line
            if at < self._said:
                continue  # more was said meanwhile
            if self.task.done():
                if not self.task.cancelled():
                    self.task.result()  # raises what the build did not expect
                return
            await moved.wait()

    async def _run(self, lines: AsyncGenerator[Line, None]) -> None:
        try:
            async with aclosing(lines):
                async for line in lines:
                    self._keep(line)
                    self._wake()
        finally:
            asyncio.get_running_loop().call_soon(self._wake)  # when the task counts as done

    def _keep(self, line: Line) -> None:
        self._lines.append(line)
        self._said += 1
        self._kept += _size(line)
        while self._kept > KEPT_BYTES and len(self._lines) > 1:
            self._kept -= _size(self._lines.popleft())

    def _wake(self) -> None:
        self._moved.set()
        self._moved = asyncio.Event()


def _is_below(image: Reference, above: Reference) -> bool:
    return image.tag == above.tag and f"{image.repository}/".startswith(f"{above.repository}/")


def _size(line: Line) -> int:
    return _LINE_BYTES + sum(len(text) + _LINE_BYTES for text in line.log)


class Builds:
    """The running builds."""

    def __init__(self) -> None:
        self.all: set[Running] = set()
        self._by_key: dict[Hashable, Running] = {}

    def find(self, key: Hashable) -> Running | None:
        found = self._by_key.get(key)
        return found if found and found.can_be_joined else None

    def start(self, key: Hashable | None, build: Running) -> Running:
        """Keep `build` while it runs; without a key, none can join it."""
        self.all.add(build)
        build.task.add_done_callback(lambda _: self._forget(key, build))
        if key is not None:
            self._by_key[key] = build
        return build

    def _forget(self, key: Hashable | None, build: Running) -> None:
        self.all.discard(build)
        if self._by_key.get(key) is build:
            del self._by_key[key]
