"""Whoever is called back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web
from aiohttp.test_utils import TestServer


class Receiver:
    """`got` is what came to it: path, headers, body. It answers with `statuses`, then the last again."""

    def __init__(self, *statuses: int) -> None:
        self.statuses = list(statuses or (200,))
        self.got: list[tuple[str, dict[str, str], bytes]] = []
        self.server: TestServer | None = None

    async def answer(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.got.append(
            (request.path_qs, {name.title(): text for name, text in request.headers.items()}, body)
        )
        status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        return web.Response(status=status, headers={"Location": "/elsewhere"})

    @property
    def origin(self) -> str:
        assert self.server
        return f"http://127.0.0.1:{self.server.port}"

    @property
    def url(self) -> str:
        return f"{self.origin}/cb?x=1"


@asynccontextmanager
async def receiving(*statuses: int) -> AsyncIterator[Receiver]:
    receiver = Receiver(*statuses)
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", receiver.answer)
    receiver.server = TestServer(app)
    await receiver.server.start_server()
    try:
        yield receiver
    finally:
        await receiver.server.close()
