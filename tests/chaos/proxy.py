"""Stands between the platform's functions, the gateway and of-builder, and does as faults do to calls.

Runs in a container that has aiohttp and nothing else of ours. Faults are set on the control port: each
waits for the next calls of its kind.
"""

from __future__ import annotations

import asyncio
import os
import re
from dataclasses import dataclass, field

import aiohttp
from aiohttp import web
from yarl import URL

GATEWAY_PORT, BUILDER_PORT, CONTROL_PORT = 8080, 8081, 8082

# What a call is, by its method and path.
_CALLS = {
    "ship": re.compile("POST /function/buildshiprun$"),
    "collect": re.compile("POST /function/garbage-collect$"),
    "queue": re.compile("POST /async-function/"),
    "deploy": re.compile("(POST|PUT) /system/functions$"),
    "delete": re.compile("DELETE /system/functions$"),
    "status": re.compile("GET /system/function/"),
    "list": re.compile("GET /system/functions$"),
    "logs": re.compile("GET /system/logs$"),
    "build": re.compile("POST /build$"),
    "image": re.compile("GET /image$"),
}
_HOPS = frozenset({"connection", "keep-alive", "transfer-encoding", "host", "content-length"})
_BODY_LIMIT = 256 * 1024**2


@dataclass
class Fault:
    kind: str
    target: str
    seconds: float
    count: int


@dataclass
class Proxy:
    """`done` lists the faults that calls have met."""

    http: aiohttp.ClientSession
    faults: list[Fault] = field(default_factory=list)
    done: list[str] = field(default_factory=list)
    late: set[asyncio.Task[None]] = field(default_factory=set)

    def to(self, upstream: str) -> web.Application:
        async def handle(request: web.Request) -> web.StreamResponse:
            return await self._handle(upstream, request)

        app = web.Application(client_max_size=_BODY_LIMIT)
        app.router.add_route("*", "/{path:.*}", handle)
        return app

    def control(self) -> web.Application:
        app = web.Application()
        app.add_routes([web.post("/", self._set), web.delete("/", self._clear), web.get("/", self._tell)])
        return app

    async def _set(self, request: web.Request) -> web.Response:
        self.faults.append(Fault(**await request.json()))
        return web.Response()

    async def _clear(self, request: web.Request) -> web.Response:
        """No more faults; what is to come late has come once this is answered."""
        self.faults.clear()
        await asyncio.gather(*self.late, return_exceptions=True)
        return web.Response()

    async def _tell(self, request: web.Request) -> web.Response:
        return web.json_response(self.done)

    async def _handle(self, upstream: str, request: web.Request) -> web.StreamResponse:
        body, fault = await request.read(), self._fault(request)
        kind = fault.kind if fault else ""
        if kind == "delay" and fault:
            await asyncio.sleep(fault.seconds)
        elif kind == "500":
            return web.Response(status=500, text="a fault\n")
        elif kind == "cut":
            return _cut(request)
        elif kind == "late" and fault:
            task = asyncio.create_task(self._later(upstream, request, body, fault.seconds))
            self.late.add(task)
            task.add_done_callback(self.late.discard)
            return _cut(request)
        try:
            async with self._forward(upstream, request, body) as answer:
                if kind.endswith("applied"):
                    await answer.read()
                    return _cut(request) if kind == "cut applied" else web.Response(status=502)
                return await _pass_on(request, answer)
        except (aiohttp.ClientError, asyncio.TimeoutError, OSError):
            return _cut(request)

    async def _later(self, upstream: str, request: web.Request, body: bytes, seconds: float) -> None:
        await asyncio.sleep(seconds)
        async with self._forward(upstream, request, body) as answer:
            await answer.read()

    def _forward(
        self, upstream: str, request: web.Request, body: bytes
    ) -> aiohttp.client._RequestContextManager:
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _HOPS}
        url = URL(upstream + request.raw_path, encoded=True)
        return self.http.request(request.method, url, headers=headers, data=body, allow_redirects=False)

    def _fault(self, request: web.Request) -> Fault | None:
        """The first fault that waits for such a call."""
        call = f"{request.method} {request.path}"
        for fault in self.faults:
            if _CALLS[fault.target].match(call):
                fault.count -= 1
                if not fault.count:
                    self.faults.remove(fault)
                self.done.append(f"{fault.kind} {fault.target}")
                return fault
        return None


def _cut(request: web.Request) -> web.Response:
    """The connection ends without an answer."""
    if request.transport:
        request.transport.abort()
    return web.Response(status=500)


async def _pass_on(request: web.Request, answer: aiohttp.ClientResponse) -> web.StreamResponse:
    headers = {name: value for name, value in answer.headers.items() if name.lower() not in _HOPS}
    response = web.StreamResponse(status=answer.status, headers=headers)
    if "Content-Length" in answer.headers:
        response.content_length = answer.content_length
    await response.prepare(request)
    async for piece in answer.content.iter_any():
        await response.write(piece)
    await response.write_eof()
    return response


def session() -> aiohttp.ClientSession:
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=3)
    return aiohttp.ClientSession(timeout=timeout, auto_decompress=False)


async def serve(app: web.Application, port: int) -> web.AppRunner:
    # A caller that is gone ends its call, as it would without us; what is late comes nevertheless.
    runner = web.AppRunner(app, auto_decompress=False, handler_cancellation=True, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, None, port).start()
    return runner


async def main() -> None:
    async with session() as http:
        proxy = Proxy(http)
        await serve(proxy.to(os.environ["GATEWAY_URL"]), GATEWAY_PORT)
        await serve(proxy.to(os.environ["BUILDER_URL"]), BUILDER_PORT)
        await serve(proxy.control(), CONTROL_PORT)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
