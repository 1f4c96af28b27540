"""A status that is asked for with `Prefer: wait` comes once it says what has become of the version."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
from aiohttp import ClientTimeout

from local.gateway.settings import Settings
from sdk.gateway import Gateway
from sdk.settings import Seconds

from .local_gateway import V1, V2, Client, deployed, run, serving, spec, status
from .swarm import Behaviour, FakeSwarm

LONG, SOON = 20, 5
SHORT = 0.2


async def waited(client: Client, seconds: float = LONG) -> dict[str, Any]:
    headers = {"Prefer": f"respond-async, wait={seconds:.0f}"}
    timeout = ClientTimeout(SOON)
    async with client.get("/system/function/hello", headers=headers, timeout=timeout) as answer:
        return await answer.json() if answer.status == 200 else {"status": answer.status}


async def started(client: Client, image: str = V1) -> None:
    method = "PUT" if await status(client) else "POST"
    assert (await client.request(method, "/system/functions", json=spec(image))).status == 200


@pytest.mark.parametrize(
    ("behaviour", "becomes"),
    [(Behaviour(ready_after=SHORT), "availableReplicas"), (Behaviour(dies_after=SHORT), "failure")],
    ids=["available", "failed"],
)
def test_it_comes_once_the_version_is_available_or_has_failed(
    behaviour: Behaviour, becomes: str, settings: Settings
) -> None:
    async def test(client: Client, swarm: FakeSwarm) -> None:
        swarm.behaviours[V1] = behaviour
        await started(client)
        assert becomes not in await status(client)
        assert (await waited(client))[becomes]

    run(replace(settings, probation=Seconds(4 * SHORT)), test)


async def update(client: Client) -> None:
    await started(client, V2)


async def delete(client: Client) -> None:
    await client.delete("/system/functions", json={"functionName": "hello"})


@pytest.mark.parametrize(
    ("change", "shown"), [(update, ("image", V2)), (delete, ("status", 404))], ids=["replaced", "deleted"]
)
def test_it_comes_once_something_else_is_there(
    change: Callable[[Client], Awaitable[None]], shown: tuple[str, object], settings: Settings
) -> None:
    async def test(client: Client, swarm: FakeSwarm) -> None:
        swarm.behaviours[V1] = Behaviour(ready_after=10 * LONG)
        await started(client)
        waiting = asyncio.create_task(waited(client))
        await asyncio.sleep(SHORT)
        assert not waiting.done()
        await change(client)
        assert shown in (await waiting).items()

    run(settings, test)


def test_it_comes_when_the_time_is_over_or_nothing_is_starting(settings: Settings) -> None:
    async def test(client: Client, swarm: FakeSwarm) -> None:
        assert await waited(client) == {"status": 404}
        await deployed(client, V1)
        assert (await waited(client))["image"] == V1
        swarm.behaviours[V2] = Behaviour(ready_after=10 * LONG)
        await started(client, V2)
        assert "availableReplicas" not in await waited(client, 1)

    run(settings, test)


def test_it_does_not_keep_the_gateway_from_stopping(settings: Settings) -> None:
    async def whole() -> None:
        swarm = FakeSwarm()
        swarm.behaviours[V1] = Behaviour(ready_after=10 * LONG)
        try:
            async with serving(settings, swarm) as client:
                await started(client)
                waiting = asyncio.create_task(waited(client))
                await asyncio.sleep(SHORT)
                await client.server.close()
                assert (await asyncio.wait_for(waiting, 1))["image"] == V1
        finally:
            await swarm.close()

    asyncio.run(whole())


def test_our_client_asks_so(settings: Settings) -> None:
    async def test(client: Client, swarm: FakeSwarm) -> None:
        swarm.behaviours[V1] = Behaviour(ready_after=SHORT)
        await started(client)
        gateway = Gateway(str(client.make_url("")), ("admin", "s3cret"))
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(None, lambda: gateway.get("hello", wait=LONG))
        assert found
        assert found.available_replicas == 1

    run(settings, test)
