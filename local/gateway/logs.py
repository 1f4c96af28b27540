"""`/system/logs`: the lines of a function's containers, of all its generations, as they come.

Each task's log is read by itself. The engine's log of a whole service ends for ever in the middle, or leaves
tasks out, as soon as the service has more than one: others' containers that ended, or replicas.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import os
import re
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from datetime import datetime

import aiohttp
import msgspec
from aiohttp import web

from .errors import GatewayError
from .functions import Functions
from .swarm import Generation, Task

Entry = Mapping[str, str]

SOCKET = "/var/run/docker.sock"
_LOOK_SECONDS = 0.5
_QUEUED_LINES = 1000
_HEADER_BYTES = 8
# A log that is not followed comes at once; nobody waits for ever for an engine that stops in the middle.
_SILENCE_SECONDS = 5


class Logs:
    """Reads the engine's streams itself: docker-py's would each hold a thread."""

    def __init__(self, functions: Functions) -> None:
        self._functions = functions
        self._tasks: Mapping[str, list[Task]] = {}
        self._looked = float("-inf")
        self._looking = asyncio.Lock()
        connector = aiohttp.UnixConnector(os.environ.get("DOCKER_SOCKET", SOCKET), limit=0)
        self._engine = aiohttp.ClientSession(
            "http://engine", connector=connector, timeout=aiohttp.ClientTimeout(total=None, connect=5)
        )
        self._is_ending = False

    async def close(self) -> None:
        await self._engine.close()

    def end(self) -> None:
        """End what is followed now; a reader that wants more comes again."""
        self._is_ending = True

    async def handle(self, request: web.Request) -> web.StreamResponse:
        query = request.query
        name = query.get("name", "")
        if not self._functions.services(name):
            raise GatewayError(404, f"no such function: {name}")
        options = {"stdout": "true", "stderr": "true", "timestamps": "true"}
        if query.get("since"):
            options["since"] = _unix(query["since"])
        if re.fullmatch(r"[1-9][0-9]{0,8}", query.get("tail", "")):
            options["tail"] = query["tail"]
        follow = query.get("follow", "").lower() in ("true", "1")
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await response.prepare(request)
        lines = self._followed(name, options) if follow else self._so_far(name, options)
        async with contextlib.aclosing(lines):
            async for entry in lines:
                await response.write(msgspec.json.encode(entry) + b"\n")
        await response.write_eof()
        return response

    async def _so_far(self, name: str, options: dict[str, str]) -> AsyncGenerator[Entry, None]:
        """Of all tasks, by time; with `tail`, the last lines of all of them together."""
        sources = await self._sources(name, age=0)
        lines = merged([self._lines(generation, task, options) for generation, task in sources])
        async with contextlib.aclosing(lines):
            if "tail" not in options:
                async for entry in lines:
                    yield entry
                return
            last: deque[Entry] = deque(maxlen=int(options["tail"]))
            async for entry in lines:
                last.append(entry)
        for entry in last:
            yield entry

    async def _followed(self, name: str, options: dict[str, str]) -> AsyncGenerator[Entry, None]:
        """Every task's lines until the reader or the gateway goes; new tasks join in."""
        queue: asyncio.Queue[Entry] = asyncio.Queue(_QUEUED_LINES)
        readers: dict[str, asyncio.Task[None]] = {}

        async def read(generation: Generation, task: Task) -> None:
            async for entry in self._lines(generation, task, {**options, "follow": "true"}):
                await queue.put(entry)

        try:
            while not self._is_ending:
                sources = await self._sources(name, age=_LOOK_SECONDS)
                for generation, task in sources:
                    if task.id not in readers:
                        readers[task.id] = asyncio.create_task(read(generation, task))
                if len(readers) > len(sources):  # of those that Swarm has forgotten
                    there = {task.id for _, task in sources}
                    for gone in [each for each in readers if each not in there and readers[each].done()]:
                        del readers[gone]
                with contextlib.suppress(asyncio.TimeoutError):
                    yield await asyncio.wait_for(queue.get(), _LOOK_SECONDS)
        finally:
            for reader in readers.values():
                reader.cancel()
            await asyncio.gather(*readers.values(), return_exceptions=True)

    async def _sources(self, name: str, *, age: float) -> list[tuple[Generation, Task]]:
        """The tasks that have a log, as they were at most `age` seconds ago: all readers share one look."""
        async with self._looking:
            if time.monotonic() - self._looked >= age:
                with contextlib.suppress(GatewayError):  # the engine comes back: until then, those known
                    self._tasks = await self._functions.tasks()
                    self._looked = time.monotonic()
        return [
            (generation, task)
            for generation in self._functions.services(name)
            for task in self._tasks.get(generation.service_id, ())
            if task.is_made
        ]

    async def _lines(
        self, generation: Generation, task: Task, options: dict[str, str]
    ) -> AsyncGenerator[Entry, None]:
        silence = None if "follow" in options else _SILENCE_SECONDS
        timeout = aiohttp.ClientTimeout(total=None, connect=5, sock_read=silence)
        with contextlib.suppress(asyncio.TimeoutError, aiohttp.ClientError):
            async with self._engine.get(f"/tasks/{task.id}/logs", params=options, timeout=timeout) as answer:
                if answer.status != 200:
                    return
                async for text in frames(answer.content):
                    timestamp, _, line = text.partition(" ")
                    yield {
                        "name": generation.function,
                        "namespace": "openfaas-fn",
                        "instance": generation.service,
                        "timestamp": timestamp,
                        "text": line,
                    }


async def merged(streams: Sequence[AsyncGenerator[Entry, None]]) -> AsyncGenerator[Entry, None]:
    """By the time of each entry. A stream is in that order already, so one entry of each is held: all of them
    may not fit in memory.
    """
    async with contextlib.AsyncExitStack() as stack:
        for stream in streams:
            await stack.enter_async_context(contextlib.aclosing(stream))
        heads: list[tuple[str, int, Entry]] = []
        for number, stream in enumerate(streams):
            async for entry in stream:
                heapq.heappush(heads, (entry["timestamp"], number, entry))
                break
        while heads:
            _, number, entry = heads[0]
            yield entry
            async for following in streams[number]:
                heapq.heapreplace(heads, (following["timestamp"], number, following))
                break
            else:
                heapq.heappop(heads)


async def frames(stream: aiohttp.StreamReader) -> AsyncIterator[str]:
    """Lines of a multiplexed stream: a header of 8 bytes (stream, length) before each.

    https://docs.docker.com/reference/api/engine/version/v1.45/#tag/Container/operation/ContainerAttach
    """
    with contextlib.suppress(asyncio.IncompleteReadError):
        while True:
            header = await stream.readexactly(_HEADER_BYTES)
            text = (await stream.readexactly(int.from_bytes(header[4:], "big"))).decode(errors="replace")
            for line in text.removesuffix("\n").split("\n"):
                yield line


def _unix(since: str) -> str:
    """RFC 3339 as the seconds that the engine takes."""
    try:
        return f"{datetime.fromisoformat(since.replace('Z', '+00:00')).timestamp():.6f}"
    except ValueError:
        raise GatewayError(400, f"since: {since!r} is not a time as RFC 3339 has it") from None
