"""The local gateway's queue before a function that takes a few calls at once: whose turn it is."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
from aiohttp import web

from local.gateway.queue_store import Store
from local.gateway.settings import Settings
from sdk.settings import Seconds

from .local_gateway import V1, Client, break_off, deployed, run, until
from .swarm import Behaviour, FakeSwarm

BUSY = {"error": {"code": "busy", "message": "in a moment"}}


class Function:
    """It takes `limit` calls at once, and one at a time of those whose bodies begin alike."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.asked: list[str] = []
        self.running: list[str] = []
        self.ended: list[str] = []
        self.doors: dict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self.refusals: dict[str, asyncio.Event] = {}
        self.failures: dict[str, Callable[[web.Request], Awaitable[web.StreamResponse]]] = {}

    async def answer(self, request: web.Request) -> web.StreamResponse:
        name = await request.text()
        self.asked.append(name)
        if len(self.running) >= self.limit or name[0] in {other[0] for other in self.running}:
            if name in self.refusals:
                await self.refusals.pop(name).wait()
            return web.json_response(BUSY, status=503)
        if name in self.failures:
            return await self.failures.pop(name)(request)
        self.running.append(name)
        await self.doors[name].wait()
        self.running.remove(name)
        self.ended.append(name)
        return web.Response()

    async def end(self, *names: str) -> None:
        """Let these end, and forget who was asked before."""
        self.asked.clear()
        for name in names:
            self.doors[name].set()
        await until(lambda: asyncio.sleep(0, set(names) <= set(self.ended)))


Test = Callable[[Client, Function], Awaitable[None]]


def serve(settings: Settings, limit: int, test: Test) -> None:
    """Run `test` with pauses that are longer than it."""

    async def whole(client: Client, swarm: FakeSwarm) -> None:
        function = Function(limit)
        swarm.behaviours[V1] = Behaviour(answer=function.answer)
        await deployed(client)
        await test(client, function)

    run(replace(settings, queue_backoff=Seconds(60), queue_backoff_limit=Seconds(60)), whole)


async def rows(client: Client) -> list[dict[str, Any]]:
    async with client.get("/system/queue") as answer:
        found: list[dict[str, Any]] = await answer.json()
        return found


async def quiet(client: Client, function: Function, *running: str) -> list[dict[str, Any]]:
    """Once these are worked on, and all others have been told to wait."""

    async def is_so() -> bool:
        working = [row for row in await rows(client) if row["state"] == "working"]
        return function.running == list(running) and len(working) == len(running)

    await until(is_so)
    return [row for row in await rows(client) if row["state"] == "waiting"]


async def queue(client: Client, *names: str) -> None:
    for name in names:
        assert (await client.post("/async-function/hello", data=name.encode())).status == 202


def test_an_end_is_the_turn_of_the_oldest_that_is_taken(settings: Settings) -> None:
    async def test(client: Client, function: Function) -> None:
        await queue(client, "a1", "b1", "a2", "a3", "b2", "c1")
        await quiet(client, function, "a1", "b1")
        await function.end("b1")
        await quiet(client, function, "a1", "b2")
        assert function.asked == ["a2", "a3", "b2"], "one after the other, until one is taken"
        await function.end("a1")
        await quiet(client, function, "b2", "a2")
        assert function.asked == ["a2"]
        await function.end("b2")
        await quiet(client, function, "a2", "c1")
        assert function.asked == ["a3", "c1"]
        await function.end("c1")
        await quiet(client, function, "a2")
        assert not function.asked, "c1 was not there yet when a3 was told to wait: it waits for a2"
        await function.end("a2")
        await quiet(client, function, "a3")
        await function.end("a3")
        await until(lambda: is_empty(client))
        assert not function.asked

    serve(settings, 2, test)


async def is_empty(client: Client) -> bool:
    return not await rows(client)


def test_ends_at_once_are_the_turns_of_as_many(settings: Settings) -> None:
    async def test(client: Client, function: Function) -> None:
        await queue(client, *"abcdefgh")
        await quiet(client, function, *"abc")
        await function.end(*"abc")
        await until(lambda: asyncio.sleep(0, set(function.running) == set("def")))
        await asyncio.sleep(0.2)
        assert sorted(function.asked) == ["d", "e", "f"]

    serve(settings, 3, test)


@pytest.mark.parametrize("keys", [1, 8, 40])
def test_a_burst_makes_calls_in_proportion_to_it(keys: int, settings: Settings) -> None:
    """Each is asked when it comes and when it is its turn, and seldom in vain meanwhile."""

    async def test(client: Client, function: Function) -> None:
        names = [f"{chr(ord('A') + number % keys)}{number}" for number in range(40)]
        await queue(client, *names)
        await until(lambda: asyncio.sleep(0, set(function.asked) == set(names)))
        while len(function.ended) < len(names):
            await asyncio.sleep(0.05)  # in which many could be asked
            for name in function.running[:1]:
                function.doors[name].set()
        assert set(function.ended) == set(names)
        assert len(function.asked) <= 3 * 40

    serve(settings, 3, test)


async def failed(request: web.Request) -> web.Response:
    return web.Response(status=500)


async def away(request: web.Request) -> web.Response:
    return web.Response(status=503)


@pytest.mark.parametrize("failure", [failed, away, break_off])
def test_the_turn_of_one_that_fails_is_the_next_ones(
    failure: Callable[[web.Request], Awaitable[web.StreamResponse]], settings: Settings
) -> None:
    async def test(client: Client, function: Function) -> None:
        await queue(client, "a", "b", "c", "d")
        await quiet(client, function, "a")
        function.failures["b"] = failure
        await function.end("a")
        await quiet(client, function, "c")
        assert function.asked == ["b", "c"]

    serve(settings, 1, test)


@pytest.mark.parametrize("names", ["ab", "abc"])
def test_an_end_while_one_is_asked_counts(names: str, settings: Settings) -> None:
    """Also where nobody else could have the turn."""

    async def test(client: Client, function: Function) -> None:
        late = names[-1]
        function.refusals[late] = door = asyncio.Event()
        await queue(client, *names)
        await until(lambda: asyncio.sleep(0, late in function.asked))
        for name in names[:-1]:
            await until(lambda name=name: asyncio.sleep(0, function.running == [name]))  # type: ignore[misc]
            await function.end(name)
        await asyncio.sleep(0.2)
        assert late not in function.asked
        door.set()
        await quiet(client, function, late)

    serve(settings, 1, test)


def test_what_waits_for_its_turn_can_be_made_at_once_or_dropped(settings: Settings) -> None:
    async def test(client: Client, function: Function) -> None:
        await queue(client, "a", "b", "c")
        b, c = await quiet(client, function, "a")
        function.asked.clear()
        assert (await client.post(f"/system/queue/{c['id']}")).status == 202
        await until(lambda: asyncio.sleep(0, function.asked == ["c"]))
        await quiet(client, function, "a")
        assert (await client.delete(f"/system/queue/{b['id']}")).status == 200
        await function.end("a")
        await quiet(client, function, "c")
        assert function.asked == ["c"]

    serve(settings, 1, test)


def test_one_that_a_full_disk_keeps_from_being_dropped_still_has_its_turn(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: Any) -> Any:
        raise sqlite3.OperationalError("database or disk is full")

    async def test(client: Client, function: Function) -> None:
        await queue(client, "a", "b", "c")
        before = await quiet(client, function, "a")
        with monkeypatch.context() as patched:
            patched.setattr(Store, "remove", refuse)
            assert (await client.delete(f"/system/queue/{before[0]['id']}")).status == 503
        after = await quiet(client, function, "a")
        assert [row["id"] for row in after] == [row["id"] for row in before]
        await function.end("a")
        await quiet(client, function, "b")
        assert function.asked == ["b"]

    serve(settings, 1, test)


def test_who_had_no_turn_is_made_after_its_pause(settings: Settings) -> None:
    """The function may be busy with calls that come by another way, whose end the queue doesn't see."""

    async def test(client: Client, swarm: FakeSwarm) -> None:
        function = Function(1)
        swarm.behaviours[V1] = Behaviour(answer=function.answer)
        await deployed(client)
        direct = asyncio.create_task(client.post("/function/hello", data=b"a"))
        await until(lambda: asyncio.sleep(0, function.running == ["a"]))
        await queue(client, "b")
        await until(lambda: asyncio.sleep(0, "b" in function.asked))
        await function.end("a")
        await quiet(client, function, "b")
        assert (await direct).status == 200
        await function.end("b")

    run(settings, test)
