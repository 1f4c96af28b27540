"""The floor's route table, in a container that reaches the functions: a name, and where it leads now.

`PUT /NAME` with an address waits until that is ready, then calls of `/NAME` go there.
"""

from __future__ import annotations

import asyncio

import aiohttp
from aiohttp import web

_POLL_SECONDS = 0.01


class Router:
    def __init__(self) -> None:
        self._routes: dict[str, str] = {}

    def app(self) -> web.Application:
        app = web.Application()
        app.add_routes([web.put("/{name}", self.switch), web.get("/{name}", self.call)])
        app.cleanup_ctx.append(self._run)
        return app

    async def switch(self, request: web.Request) -> web.Response:
        base = f"http://{await request.text()}:8080"
        while not await self._is_ready(base):
            await asyncio.sleep(_POLL_SECONDS)
        self._routes[request.match_info["name"]] = base
        return web.Response()

    async def call(self, request: web.Request) -> web.Response:
        base = self._routes.get(request.match_info["name"])
        if not base:
            return web.Response(status=404)
        async with self._http.get(base) as answer:
            return web.Response(status=answer.status, body=await answer.read())

    async def _is_ready(self, base: str) -> bool:
        try:
            async with self._http.get(f"{base}/_/ready", timeout=aiohttp.ClientTimeout(total=2)) as answer:
                return answer.status == 200
        except (aiohttp.ClientError, asyncio.TimeoutError, OSError):
            return False

    async def _run(self, app: web.Application):  # type: ignore[no-untyped-def]
        async with aiohttp.ClientSession() as self._http:
            yield


if __name__ == "__main__":
    web.run_app(Router().app(), port=8080, access_log=None, print=None)
