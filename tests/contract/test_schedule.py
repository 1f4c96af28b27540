"""The local gateway's clock together with its queue."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from aiohttp import web

from local.gateway.async_queue import AsyncQueue
from local.gateway.queue_store import Call
from local.gateway.schedule import Schedule
from local.gateway.settings import Settings

from .local_gateway import V1, Client, deployed, run, serving, until
from .swarm import Behaviour, FakeSwarm


@pytest.fixture
def queues(monkeypatch: pytest.MonkeyPatch) -> list[AsyncQueue]:
    """The queues of the gateways that were started."""
    started: list[AsyncQueue] = []

    class Known(AsyncQueue):
        def load(self) -> None:
            started.append(self)
            super().load()

    monkeypatch.setattr("local.gateway.app.AsyncQueue", Known)
    return started


def test_of_calls_with_one_key_only_one_is_there(settings: Settings, queues: list[AsyncQueue]) -> None:
    """Also after a restart; and the next one may come once it has ended, well or not."""
    answers = iter([503, 500, 200])
    calls: list[str] = []
    open_ = asyncio.Event()

    async def answer(request: web.Request) -> web.Response:
        calls.append(request.path)
        await open_.wait()
        return web.Response(status=next(answers))

    async def whole() -> None:
        swarm = FakeSwarm()
        swarm.behaviours[V1] = Behaviour(answer=answer)
        try:
            async with serving(settings, swarm) as client:
                await deployed(client)
                put = queues[-1].put
                await put(Call("hello", "/first", {}, key="clock"))
                await until(lambda: asyncio.sleep(0, calls == ["/first"]))
                await put(Call("hello", "/left-out", {}, key="clock"))
            calls.clear()
            async with serving(settings, swarm) as client:
                put = queues[-1].put
                await put(Call("hello", "/left-out", {}, key="clock"))
                open_.set()
                await until(lambda: asyncio.sleep(0, calls == ["/first"] * 2))  # 503, then 500
                await until(
                    lambda: asyncio.sleep(
                        0, {entry.state for entry in queues[-1]._entries.values()} == {"failed"}
                    )
                )
                await put(Call("hello", "/next", {}, key="clock"))
                await until(lambda: asyncio.sleep(0, calls[-1] == "/next"))
        finally:
            await swarm.close()
        assert "/left-out" not in calls

    asyncio.run(whole())


def test_a_function_with_a_schedule_is_called_through_the_queue(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twelve minutes a second: the clock runs fast here."""
    calls: list[tuple[str, bytes, bool]] = []
    started = time.time()

    async def answer(request: web.Request) -> web.Response:
        calls.append((request.path, await request.read(), "X-Call-Id" in request.headers))
        return web.Response(status=503 if len(calls) == 1 else 200)

    class Fast(Schedule):
        def __init__(self, functions: Any, put: Any) -> None:
            pause = asyncio.sleep
            super().__init__(
                functions, put, lambda: (time.time() - started) * 720, lambda seconds: pause(seconds / 720)
            )

    async def test(client: Client, swarm: FakeSwarm) -> None:
        swarm.behaviours[V1] = Behaviour(answer=answer)
        await deployed(client, annotations={"topic": "cron-function", "schedule": "*/5 * * * *"})
        await until(lambda: asyncio.sleep(0, len(calls) >= 3))
        assert set(calls) == {("/", b"", True)}
        await client.delete("/system/functions", json={"functionName": "hello"})
        made = len(calls)
        await asyncio.sleep(1)
        assert len(calls) == made

    monkeypatch.setattr("local.gateway.app.Schedule", Fast)
    run(settings, test)
