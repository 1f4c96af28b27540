"""The proxy of `make chaos`: what a fault does to a call, and that it does nothing to others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from yarl import URL

from tests.chaos.proxy import Proxy, session


@dataclass
class Upstream:
    """Answers each call with its method, target and body, and remembers it."""

    calls: list[str] = field(default_factory=list)

    async def handle(self, request: web.Request) -> web.Response:
        body = (await request.read()).decode()
        self.calls.append(f"{request.method} {request.raw_path} {body}".strip())
        return web.Response(text=self.calls[-1], status=201, headers={"X-Kept": "1"})


@dataclass
class Bench:
    upstream: Upstream
    proxy: Proxy
    url: str
    control: str
    http: aiohttp.ClientSession

    async def call(self, method: str, target: str, body: bytes = b"") -> tuple[int, str]:
        async with self.http.request(method, URL(self.url + target, encoded=True), data=body) as answer:
            return answer.status, await answer.text()

    async def fault(self, kind: str, target: str, seconds: float = 0, count: int = 1) -> None:
        fault = {"kind": kind, "target": target, "seconds": seconds, "count": count}
        async with self.http.post(self.control, json=fault) as answer:
            assert answer.status == 200


@asynccontextmanager
async def bench() -> AsyncIterator[Bench]:
    upstream, app = Upstream(), web.Application()
    app.router.add_route("*", "/{path:.*}", upstream.handle)
    async with (
        TestServer(app) as behind,
        session() as http,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as client,
    ):
        proxy = Proxy(http)
        async with (
            TestServer(proxy.to(str(behind.make_url("")).rstrip("/"))) as front,
            TestServer(proxy.control()) as control,
        ):
            front_url = str(front.make_url("")).rstrip("/")
            yield Bench(upstream, proxy, front_url, str(control.make_url("/")), client)


def meets(work: Callable[[Bench], Awaitable[None]]) -> None:
    async def run() -> None:
        async with bench() as found:
            await asyncio.wait_for(work(found), 20)

    asyncio.run(run())


def test_a_call_goes_through_as_it_is() -> None:
    async def work(at: Bench) -> None:
        told = await at.call("POST", "/image?a=%2F&b", b"body")
        assert told == (201, "POST /image?a=%2F&b body")

    meets(work)


@pytest.mark.parametrize(
    ("kind", "status", "applied"),
    [("delay", 201, 1), ("500", 500, 0), ("502 applied", 502, 1), ("cut", 0, 0), ("cut applied", 0, 1)],
)
def test_a_fault_meets_the_next_call_of_its_kind(kind: str, status: int, applied: int) -> None:
    async def work(at: Bench) -> None:
        await at.fault(kind, "deploy", 0.1)
        assert (await at.call("GET", "/system/functions"))[0] == 201
        before = len(at.upstream.calls)
        try:
            answered = (await at.call("POST", "/system/functions", b"x"))[0]
        except aiohttp.ClientError:
            answered = 0
        assert (answered, len(at.upstream.calls) - before) == (status, applied)
        assert (await at.call("POST", "/system/functions", b"x"))[0] == 201
        async with at.http.get(at.control) as told:
            assert await told.json() == [f"{kind} deploy"]

    meets(work)


def test_what_is_late_comes_though_nobody_waits_and_before_the_faults_are_said_to_end() -> None:
    async def work(at: Bench) -> None:
        await at.fault("late", "ship", 0.3)
        with pytest.raises(aiohttp.ClientError):
            await at.call("POST", "/function/buildshiprun", b"tar")
        assert at.upstream.calls == []
        async with at.http.delete(at.control) as answer:
            assert answer.status == 200
        assert at.upstream.calls == ["POST /function/buildshiprun tar"]

    meets(work)


def test_faults_end_when_they_are_told_to() -> None:
    async def work(at: Bench) -> None:
        await at.fault("500", "status", count=100)
        assert (await at.call("GET", "/system/function/x"))[0] == 500
        async with at.http.delete(at.control):
            pass
        assert (await at.call("GET", "/system/function/x"))[0] == 201

    meets(work)
