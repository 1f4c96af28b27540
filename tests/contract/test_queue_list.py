"""What the local gateway's queue shows of its calls, and what can be done with them: /system/queue."""

from __future__ import annotations

import asyncio
import json
import logging
import multiprocessing
import os
import signal
import sqlite3
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from local.gateway.deployment import Deployment
from local.gateway.queue_store import Store
from local.gateway.settings import Settings
from local.gateway.swarm import LIVE
from sdk.settings import Seconds

from .local_gateway import V1, Client, deployed, run, serving, until
from .swarm import Behaviour, FakeSwarm

SECRET = "hunter2-in-a-body"
SLOW: dict[str, Any] = {"queue_backoff": Seconds(60), "queue_backoff_limit": Seconds(60)}


async def listed(client: Client) -> list[dict[str, Any]]:
    async with client.get("/system/queue") as answer:
        assert answer.status == 200
        found: list[dict[str, Any]] = await answer.json()
        return found


async def in_state(client: Client, state: str, count: int = 1) -> list[dict[str, Any]]:
    async def is_so() -> bool:
        return [call["state"] for call in await listed(client)].count(state) == count

    await until(is_so)
    return [call for call in await listed(client) if call["state"] == state]


def answering(*statuses: int, body: str = "") -> tuple[list[bytes], Behaviour]:
    """A function that answers with each of `statuses`, then with the last; and the bodies that it got."""
    got: list[bytes] = []

    async def answer(request: web.Request) -> web.Response:
        got.append(await request.read())
        return web.Response(status=statuses[min(len(got), len(statuses)) - 1], text=body)

    return got, Behaviour(answer=answer)


def test_a_call_that_failed_for_good_stays_and_can_be_made_again(settings: Settings) -> None:
    error = json.dumps({"error": {"code": "failed", "message": "the stack is wrong\n twice"}})
    got, behaviour = answering(422, 200, body=error)
    headers = {"X-GitHub-Delivery": "d-1", "X-Cloud-Signature": SECRET, "Authorization": f"Bearer {SECRET}"}

    async def test(client: Client, swarm: FakeSwarm) -> None:
        swarm.behaviours[V1] = behaviour
        await deployed(client)
        queued = await client.post(f"/async-function/hello?key={SECRET}", data=SECRET, headers=headers)
        [call] = await in_state(client, "failed")
        assert call == {
            "id": 1,
            "function": "hello",
            "state": "failed",
            "callback": False,
            "callId": queued.headers["X-Call-Id"],
            "delivery": "d-1",
            "repository": "",
            "bytes": len(SECRET),
            "queuedAt": call["queuedAt"],
            "attempts": 1,
            "status": 422,
            "error": "the stack is wrong twice",
            "nextTry": "",
            "endedAt": call["endedAt"],
            "canBeRetried": True,
        }
        assert call["queuedAt"] <= call["endedAt"]
        assert SECRET not in json.dumps(await listed(client))
        assert (await client.post("/system/queue/1")).status == 202
        await until(lambda: asyncio.sleep(0, got == [SECRET.encode()] * 2))
        await until(lambda: is_empty(client))

    run(settings, test)


@pytest.mark.parametrize(
    ("body", "signed", "shown"),
    [
        ('{"for": "git-tar", "repository": {"id": 7, "full_name": "alice/hello"}}', True, "alice/hello"),
        ('{"for": "git-tar", "repository": {"id": 7, "full_name": "alice/hello"}}', False, ""),
        ('{"repository": {"full_name": "\\u001b[31m"}}', True, ""),
        ('{"repository": 7}', True, ""),
        (SECRET, True, ""),
    ],
)
def test_the_repository_of_a_signed_message_is_shown(
    body: str, signed: bool, shown: str, settings: Settings
) -> None:
    async def test(client: Client, swarm: FakeSwarm) -> None:
        swarm.behaviours[V1] = answering(422)[1]
        await deployed(client)
        headers = {"X-Cloud-Signature": SECRET} if signed else {}
        await client.post("/async-function/hello", data=body, headers=headers)
        [call] = await in_state(client, "failed")
        assert call["repository"] == shown

    run(settings, test)


async def is_empty(client: Client) -> bool:
    return not await listed(client)


def test_what_waits_and_what_is_worked_on_is_shown_too(settings: Settings) -> None:
    async def test(client: Client, swarm: FakeSwarm) -> None:
        gate = asyncio.Event()

        async def answer(request: web.Request) -> web.Response:
            await gate.wait()
            return web.Response()

        swarm.behaviours[V1] = Behaviour(answer=answer)
        await deployed(client)
        await client.post("/async-function/hello", data=b"x")
        await client.post("/async-function/not-there", data=b"x")
        [working], [waiting] = await in_state(client, "working"), await in_state(client, "waiting")
        assert (working["function"], working["attempts"]) == ("hello", 1)
        assert (waiting["function"], waiting["attempts"], waiting["status"]) == ("not-there", 1, 503)
        assert waiting["error"] == "No endpoints available for: not-there."
        assert waiting["nextTry"] > waiting["queuedAt"]
        assert (await client.delete(f"/system/queue/{working['id']}")).status == 409
        assert (await client.post(f"/system/queue/{working['id']}")).status == 409
        gate.set()

    run(replace(settings, **SLOW), test)


def test_a_call_that_pauses_can_be_made_at_once_or_dropped(settings: Settings) -> None:
    got, behaviour = answering(503, 200)

    async def test(client: Client, swarm: FakeSwarm) -> None:
        swarm.behaviours[V1] = behaviour
        await deployed(client)
        await client.post("/async-function/hello", data=b"one")
        [one] = await in_state(client, "waiting")
        assert (await client.post(f"/system/queue/{one['id']}")).status == 202
        await until(lambda: is_empty(client))
        await client.post("/async-function/not-there", data=b"two")
        [two] = await in_state(client, "waiting")
        assert (await client.delete(f"/system/queue/{two['id']}")).status == 200
        assert await is_empty(client)
        assert got == [b"one", b"one"]
        for method in ("POST", "DELETE"):
            async with client.request(method, f"/system/queue/{two['id']}") as answer:
                assert answer.status == 404

    run(replace(settings, **SLOW), test)


def test_failed_calls_outlive_a_restart_and_dropped_ones_are_gone(settings: Settings) -> None:
    _, behaviour = answering(500)

    async def whole() -> None:
        swarm = FakeSwarm()
        swarm.behaviours[V1] = behaviour
        try:
            async with serving(settings, swarm) as client:
                await deployed(client)
                for body in (b"a", b"b"):
                    await client.post("/async-function/hello", data=body)
                before = await in_state(client, "failed", 2)
                assert (await client.delete(f"/system/queue/{before[0]['id']}")).status == 200
            async with serving(settings, swarm) as client:
                assert await listed(client) == before[1:]
        finally:
            await swarm.close()

    asyncio.run(whole())


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413])
def test_the_body_of_a_refused_call_is_not_kept(status: int, settings: Settings) -> None:
    _, behaviour = answering(status)

    async def test(client: Client, swarm: FakeSwarm) -> None:
        swarm.behaviours[V1] = behaviour
        await deployed(client)
        await client.post("/async-function/hello", data=SECRET, headers={"X-Mine": SECRET})
        [call] = await in_state(client, "failed")
        assert (call["status"], call["canBeRetried"], call["bytes"]) == (status, False, len(SECRET))
        async with client.post(f"/system/queue/{call['id']}") as answer:
            assert (answer.status, "send it anew" in await answer.text()) == (409, True)

    run(settings, test)
    rows = sqlite3.connect(f"{settings.queue_path}/data.db").execute("SELECT data FROM ack_queue_default")
    assert SECRET.encode() not in b"".join(data for (data,) in rows)


def test_a_401_between_our_own_functions_is_kept_aside_and_alarmed(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    got, behaviour = answering(401, 200)

    async def test(client: Client, swarm: FakeSwarm) -> None:
        swarm.behaviours[V1] = behaviour
        await deployed(client)
        await client.post("/async-function/hello", data=SECRET, headers={"X-Cloud-Signature": "sha256=1"})
        [call] = await in_state(client, "failed")
        assert (call["status"], call["canBeRetried"], call["attempts"]) == (401, True, 1)
        assert (await client.post(f"/system/queue/{call['id']}")).status == 202
        await until(lambda: is_empty(client))

    with caplog.at_level(logging.ERROR):
        run(settings, test)
    [line] = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert line.startswith("ALARM: an operator must act: hello and who calls it must hold the same secrets")
    assert SECRET not in caplog.text
    assert got == [SECRET.encode()] * 2


def test_calls_that_the_queue_does_not_take_leave_nothing(settings: Settings) -> None:
    async def test(client: Client, swarm: FakeSwarm) -> None:
        refused = [
            await client.post("/async-function/hello", data=bytes(256_001)),
            await client.post("/async-function/Hello", data=b"x"),
            await client.get("/async-function/hello"),
        ]
        assert [answer.status for answer in refused] == [500, 404, 405]
        assert await is_empty(client)

    run(settings, test)


def test_the_list_of_failed_calls_is_bounded(settings: Settings) -> None:
    _, behaviour = answering(500)

    async def test(client: Client, swarm: FakeSwarm) -> None:
        swarm.behaviours[V1] = behaviour
        await deployed(client)
        for number in range(6):
            await client.post("/async-function/hello", data=b"%d" % number)
        await in_state(client, "failed", 2)
        await asyncio.sleep(0.2)
        assert len(await listed(client)) == 2

    run(replace(settings, queue_failed_limit=2), test)


def test_a_full_disk_is_503_to_who_queues_and_nothing_is_half_done(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: Any) -> Any:
        raise sqlite3.OperationalError("database or disk is full")

    _, behaviour = answering(500)

    async def test(client: Client, swarm: FakeSwarm) -> None:
        swarm.behaviours[V1] = behaviour
        await deployed(client)
        await client.post("/async-function/hello", data=b"x")
        before = await in_state(client, "failed")
        with monkeypatch.context() as patched:
            for step in ("add", "again", "remove"):
                patched.setattr(Store, step, refuse)
            for method, path in (
                ("POST", "/async-function/hello"),
                ("POST", "/system/queue/1"),
                ("DELETE", "/system/queue/1"),
            ):
                async with client.request(method, path, data=b"x") as answer:
                    assert (answer.status, "disk is full" in await answer.text()) == (503, True)
        assert await listed(client) == before

    run(settings, test)


def test_an_answer_that_is_no_http_shows_no_header_in_the_log(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    async def answer(request: web.Request) -> web.Response:
        assert request.transport
        request.transport.write(b"no http at all\r\n\r\n")
        request.transport.close()
        return web.Response()

    async def test(client: Client, swarm: FakeSwarm) -> None:
        swarm.behaviours[V1] = Behaviour(answer=answer)
        await deployed(client)
        headers = {"Authorization": f"Bearer {SECRET}"}
        await client.post("/async-function/hello", data=b"x", headers=headers)
        [call] = await in_state(client, "failed")
        assert call["attempts"] == 2
        assert SECRET not in json.dumps(call)

    run(replace(settings, queue_attempts=2), test)
    assert SECRET not in caplog.text


def _until_killed(fields: dict[str, Any], queue: bool) -> None:
    """A gateway in a process of its own; the function that it calls kills it."""

    async def kill(request: web.Request) -> web.Response:
        os.kill(os.getpid(), signal.SIGKILL)
        return web.Response()

    async def whole() -> None:
        async with serving(Settings(**fields), await with_hello(kill)) as client:
            if queue:
                await client.post("/async-function/hello", data=b"poison")
            await asyncio.sleep(30)

    asyncio.run(whole())


async def with_hello(answer: Callable[[web.Request], Any]) -> FakeSwarm:
    """A Swarm in which the function hello is live already."""
    swarm = FakeSwarm()
    swarm.behaviours[V1] = Behaviour(answer=answer)
    generation = await swarm.create(Deployment(service="hello", image=V1), 1, {})
    generation.state = LIVE
    await swarm.mark(generation)
    return swarm


def test_a_call_that_kills_its_worker_ends_and_is_shown(settings: Settings) -> None:
    """kill -9 of the gateway in the middle of the call, as often as it may be tried."""
    settings = replace(settings, queue_attempts=3)
    context = multiprocessing.get_context("spawn")
    for attempt in range(3):
        process = context.Process(target=_until_killed, args=(asdict(settings), attempt == 0))
        process.start()
        process.join(30)
        assert process.exitcode == -signal.SIGKILL
    made: list[str] = []

    async def count(request: web.Request) -> web.Response:
        made.append(request.path)
        return web.Response()

    async def whole() -> None:
        swarm = await with_hello(count)
        try:
            async with serving(settings, swarm) as client:
                [call] = await in_state(client, "failed")
                assert (call["attempts"], call["status"]) == (3, 503)
                assert call["error"] == "the gateway stopped while it was being made"
                assert not made
        finally:
            await swarm.close()

    asyncio.run(whole())


def test_strangers_see_nothing_of_the_queue(settings: Settings, tmp_path: Path) -> None:
    async def test(client: Client, swarm: FakeSwarm) -> None:
        async with aiohttp.ClientSession() as stranger:
            for method, path in (("GET", ""), ("POST", "/1"), ("DELETE", "/1")):
                async with stranger.request(method, client.make_url(f"/system/queue{path}")) as answer:
                    assert answer.status == 401

    run(settings, test)
