"""The local gateway's queue: calls that are made later, and never lost."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from dataclasses import replace
from typing import Any

import pytest
from aiohttp import ClientTimeout, web
from yarl import URL

from local.gateway.queue_store import Store
from local.gateway.settings import Settings
from sdk.settings import Seconds

from . import recordings
from .local_gateway import (
    V1,
    Client,
    break_off,
    deployed,
    run,
    serving,
    until,
)
from .swarm import Behaviour, FakeSwarm


def test_a_queued_call_is_made_with_its_headers_and_path(settings: Settings) -> None:
    got: list[tuple[str, bytes, str]] = []

    async def answer(request: web.Request) -> web.Response:
        got.append((request.path_qs, await request.read(), request.headers["X-Cloud-Signature"]))
        return web.Response()

    async def test(client: Client, swarm: FakeSwarm) -> None:
        swarm.behaviours[V1] = Behaviour(answer=answer)
        await deployed(client)
        headers = {"X-Cloud-Signature": "sha256=1"}
        queued = await client.post("/async-function/hello/p?q=1", data=b"body", headers=headers)
        assert (queued.status, await queued.read()) == (202, b"")
        assert queued.headers["X-Call-Id"]
        await until(lambda: asyncio.sleep(0, bool(got)))
        assert got == [("/p?q=1", b"body", "sha256=1")]

    run(settings, test)


@pytest.mark.parametrize(("code", "tries"), [(503, 5), (502, 5), (429, 5), (500, 1), (422, 1), (401, 1)])
def test_a_queued_call_is_tried_again_only_if_it_may_succeed(
    code: int, tries: int, settings: Settings
) -> None:
    calls: list[int] = []

    async def answer(request: web.Request) -> web.Response:
        calls.append(code)
        return web.Response(status=code)

    async def test(client: Client, swarm: FakeSwarm) -> None:
        swarm.behaviours[V1] = Behaviour(answer=answer)
        await deployed(client)
        await client.post("/async-function/hello", data=b"x")
        await until(lambda: asyncio.sleep(0, len(calls) == tries))
        await asyncio.sleep(0.3)
        assert len(calls) == tries

    run(settings, test)


def test_a_queued_call_whose_answer_breaks_off_is_tried_again(settings: Settings) -> None:
    calls: list[str] = []

    async def count(request: web.Request) -> web.StreamResponse:
        calls.append(request.path)
        return await break_off(request)

    async def test(client: Client, swarm: FakeSwarm) -> None:
        swarm.behaviours[V1] = Behaviour(answer=count)
        await deployed(client)
        await client.post("/async-function/hello", data=b"x")
        await until(lambda: asyncio.sleep(0, len(calls) == settings.queue_attempts))

    run(settings, test)


@pytest.mark.parametrize("step", ["call", "change", "remove"])
def test_a_queued_call_outlives_a_full_disk(
    step: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused: list[str] = []
    whole = getattr(Store, step)

    def refuse_once(*arguments: Any, **named: Any) -> Any:
        if refused:
            return whole(*arguments, **named)
        refused.append(step)
        raise sqlite3.OperationalError("database or disk is full")

    async def test(client: Client, swarm: FakeSwarm) -> None:
        monkeypatch.setattr(Store, step, refuse_once)
        await deployed(client)
        await client.post("/async-function/hello", data=b"x")
        await until(lambda: asyncio.sleep(0, "/" in swarm.of(V1).calls))
        assert refused == [step]

    run(settings, test)


def test_a_call_is_made_though_who_queued_it_has_gone(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Store.add

    def slowly(*arguments: Any, **named: Any) -> Any:
        time.sleep(0.3)
        return whole(*arguments, **named)

    async def test(client: Client, swarm: FakeSwarm) -> None:
        await deployed(client)
        monkeypatch.setattr(Store, "add", slowly)
        with pytest.raises(asyncio.TimeoutError):
            await client.post("/async-function/hello", data=b"x", timeout=ClientTimeout(0.1))
        await until(lambda: asyncio.sleep(0, "/" in swarm.of(V1).calls))

    run(settings, test)


def test_a_call_that_finds_the_function_busy_has_its_turn_once_another_has_ended(settings: Settings) -> None:
    """However often it was busy: that is no attempt, and its pauses don't keep it from its turn."""
    settings = replace(settings, queue_backoff=Seconds(30), queue_backoff_limit=Seconds(30), queue_attempts=2)
    ended: list[bytes] = []
    doors = {b"first": asyncio.Event(), b"second": asyncio.Event()}
    busy = {"error": {"code": "busy", "message": "in a moment"}}

    async def answer(request: web.Request) -> web.Response:
        body = await request.read()
        if body == b"third" and len(ended) < 2:
            return web.json_response(busy, status=503)
        if body in doors:
            await doors[body].wait()
        ended.append(body)
        return web.Response()

    async def test(client: Client, swarm: FakeSwarm) -> None:
        swarm.behaviours[V1] = Behaviour(answer=answer)
        await deployed(client)
        for body in (b"first", b"second", b"third"):
            await client.post("/async-function/hello", data=body)
        for door in doors.values():
            await until(lambda: waits_for_its_turn(client))
            door.set()
        await until(lambda: asyncio.sleep(0, ended == [b"first", b"second", b"third"]))

    async def waits_for_its_turn(client: Client) -> bool:
        async with client.get("/system/queue") as answer:
            rows = await answer.json()
        return [(row["state"], row["attempts"]) for row in rows if row["error"]] == [("waiting", 0)]

    run(settings, test)


def test_a_queued_call_of_a_function_that_comes_later_is_made(settings: Settings) -> None:
    async def test(client: Client, swarm: FakeSwarm) -> None:
        assert (await client.post("/async-function/hello", data=b"x")).status == 202
        await asyncio.sleep(0.1)
        await deployed(client)
        await until(lambda: asyncio.sleep(0, "/" in swarm.of(V1).calls))

    run(replace(settings, queue_attempts=50), test)


def test_at_most_four_calls_of_one_function_are_made_at_once(settings: Settings) -> None:
    running, most, done = 0, 0, 0

    async def answer(request: web.Request) -> web.Response:
        nonlocal running, most, done
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.05)
        running -= 1
        done += 1
        return web.Response()

    async def test(client: Client, swarm: FakeSwarm) -> None:
        swarm.behaviours[V1] = Behaviour(answer=answer)
        await deployed(client)
        for _ in range(12):
            await client.post("/async-function/hello", data=b"x")
        await until(lambda: asyncio.sleep(0, done == 12))
        assert most == 4

    run(settings, test)


def test_queued_calls_survive_a_restart_also_the_one_that_was_being_made(settings: Settings) -> None:
    calls: list[bytes] = []
    hanging = True

    async def answer(request: web.Request) -> web.Response:
        calls.append(await request.read())
        if hanging:
            await asyncio.sleep(60)
        return web.Response()

    async def whole() -> None:
        nonlocal hanging
        swarm = FakeSwarm()
        swarm.behaviours[V1] = Behaviour(answer=answer)
        try:
            async with serving(settings, swarm) as client:
                await deployed(client)
                for number in range(6):
                    await client.post("/async-function/hello", data=b"%d" % number)
                await until(lambda: asyncio.sleep(0, len(calls) == 4))
            hanging = False
            calls.clear()
            async with serving(settings, swarm) as client:
                await until(lambda: asyncio.sleep(0, len(calls) == 6))
                assert sorted(calls) == [b"%d" % number for number in range(6)]
            async with serving(settings, swarm) as client:
                await asyncio.sleep(0.2)
                assert len(calls) == 6, "what has succeeded is not made again"
        finally:
            await swarm.close()

    asyncio.run(whole())


def test_the_queue_is_bounded_in_length_and_size(settings: Settings) -> None:
    recorded = recordings.FOLDER / "C8-async-256001-bytes.txt"
    assert "maximum: 256000 bytes" in recorded.read_text()

    async def test(client: Client, swarm: FakeSwarm) -> None:
        big = await client.post("/async-function/hello", data=bytes(256_001))
        assert (big.status, "maximum: 256000 bytes" in await big.text()) == (500, True)
        assert (await client.post("/async-function/hello", data=bytes(256_000))).status == 202
        codes = [(await client.post("/async-function/hello", data=b"x")).status for _ in range(4)]
        assert codes == [202, 202, 429, 429]

    run(replace(settings, queue_limit=3, queue_backoff=Seconds(60), queue_backoff_limit=Seconds(60)), test)


def test_calls_of_what_is_not_there_are_bounded_together(settings: Settings) -> None:
    async def test(client: Client, swarm: FakeSwarm) -> None:
        await deployed(client)
        codes = [(await client.post(f"/async-function/hello-{number}")).status for number in range(7)]
        assert codes == [202] * 5 + [429] * 2
        assert (await client.post("/async-function/hello")).status == 202, "they crowd out no one's"

    long = replace(settings, queue_backoff=Seconds(60), queue_backoff_limit=Seconds(60))
    run(replace(long, queue_limit=3, queue_unknown_limit=5), test)


@pytest.mark.parametrize("name", ["Hello", "a_b", "a%2Fb", "-a", "a" * 64])
def test_what_no_function_can_be_named_is_not_queued(name: str, settings: Settings) -> None:
    async def test(client: Client, swarm: FakeSwarm) -> None:
        answer = await client.post(URL(f"/async-function/{name}", encoded=True), data=b"x")
        assert (answer.status, await answer.text()) == (404, "404 page not found\n")

    run(settings, test)
