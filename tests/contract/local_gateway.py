"""A local gateway to call in tests, with a Swarm in memory."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from local.gateway.app import SERVER, Gateway
from local.gateway.settings import Settings

from .swarm import FakeSwarm, Resolver

Client = TestClient[web.Request, web.Application]
AUTH = {"Authorization": "Basic " + base64.b64encode(b"admin:s3cret").decode()}
V1, V2, V3 = (f"r/acme/hello@sha256:{digit * 64}" for digit in "123")
PATIENCE = 5.0


@asynccontextmanager
async def serving(settings: Settings, swarm: FakeSwarm) -> AsyncIterator[Client]:
    app = Gateway(settings, swarm, Resolver(swarm)).app()  # type: ignore[arg-type]
    server = TestServer(app)  # which has handler_cancellation on
    await server.start_server(auto_decompress=SERVER["auto_decompress"])
    async with TestClient(server, headers=AUTH) as client:
        yield client


def run(settings: Settings, test: Callable[[Client, FakeSwarm], Awaitable[None]]) -> None:
    async def whole() -> None:
        swarm = FakeSwarm()
        try:
            async with serving(settings, swarm) as client:
                await test(client, swarm)
        finally:
            await swarm.close()

    asyncio.run(whole())


def spec(image: str = V1, **extra: Any) -> dict[str, Any]:
    return {"service": "hello", "image": image, **extra}


async def status(client: Client, name: str = "hello") -> dict[str, Any]:
    async with client.get(f"/system/function/{name}") as answer:
        return await answer.json() if answer.status == 200 else {}


async def until(check: Callable[[], Awaitable[bool]]) -> None:
    deadline = asyncio.get_running_loop().time() + PATIENCE
    while not await check():
        assert asyncio.get_running_loop().time() < deadline, "it did not come true in time"
        await asyncio.sleep(0.02)


async def deployed(client: Client, image: str = V1, **extra: Any) -> None:
    method = "PUT" if await status(client) else "POST"
    answer = await client.request(method, "/system/functions", json=spec(image, **extra))
    assert answer.status == 200, await answer.text()

    async def is_ready() -> bool:
        found = await status(client)
        return found["image"] == image and bool(found.get("availableReplicas"))

    await until(is_ready)


async def failure(client: Client) -> str:
    """Why the wanted version will not get ready, once that is known."""
    await until(lambda: status_has(client, "failure"))
    return str((await status(client))["failure"])


async def status_has(client: Client, key: str) -> bool:
    return key in await status(client)


async def hang(request: web.Request) -> web.Response:
    await asyncio.sleep(30)
    return web.Response()


async def text_of(client: Client, path: str = "/function/hello") -> tuple[int, str]:
    async with client.get(path) as answer:
        return answer.status, await answer.text()


async def break_off(request: web.Request) -> web.StreamResponse:
    """Answers with a part of what it promised."""
    response = web.StreamResponse(headers={"Content-Length": "100"})
    await response.prepare(request)
    await response.write(b"part")
    assert request.transport
    request.transport.abort()
    return response
