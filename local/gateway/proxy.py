"""Calls of functions, streamed both ways."""

from __future__ import annotations

import asyncio
import re
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager

import aiohttp
from aiohttp import SocketFactoryType, web
from aiohttp.abc import AbstractResolver
from multidict import CIMultiDict
from yarl import URL

from .errors import GatewayError
from .functions import Functions
from .settings import Settings

CALL_ID = "X-Call-Id"
START_TIME = "X-Start-Time"
INTERNAL = "X-OpenFaaS-Internal"

# RFC 9110, 7.6.1: these concern one connection and are not passed on.
_HOP_BY_HOP = frozenset(
    "connection keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer "
    "transfer-encoding upgrade".split()
)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_RETRY_SECONDS = 0.1
_SHORT_BYTES = 64 * 1024
_NOT_CONNECTED = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)
_IDEMPOTENT = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PUT", "TRACE"})  # RFC 9110, 9.2.2
_ID = re.compile(r"[!-~]{1,200}")
_REPLACED = frozenset({"host", "content-length", "expect"})


def client(
    settings: Settings,
    resolver: AbstractResolver | None = None,
    socket_factory: SocketFactoryType | None = None,
) -> aiohttp.ClientSession:
    """A session that changes nothing on the way: no header, no redirect, no decompression.

    Idle connections are dropped before a function's server would (Node.js: after 5 s).
    """
    connector = aiohttp.TCPConnector(
        limit=0, keepalive_timeout=4, ttl_dns_cache=1, resolver=resolver, socket_factory=socket_factory
    )
    timeout = aiohttp.ClientTimeout(total=settings.upstream_timeout, sock_connect=1)
    return aiohttp.ClientSession(
        connector=connector,
        timeout=timeout,
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        skip_auto_headers=("Accept", "Accept-Encoding", "Content-Type", "User-Agent"),
    )


class Body:
    """What a caller sends, piece by piece; `error` if nothing came for `patience` seconds."""

    def __init__(self, request: web.Request, patience: float) -> None:
        self._content, self._patience = request.content, patience
        self.error: GatewayError | None = None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            while piece := await asyncio.wait_for(self._content.readany(), self._patience):
                yield piece
        except asyncio.TimeoutError:
            self.error = GatewayError(408, f"nothing came for {self._patience:g} s")
            raise self.error from None


async def received(request: web.Request, patience: float) -> Body | bytes | None:
    """The request's body, read whole if it is short: so a slow caller holds no function."""
    if not request.can_read_body:
        return None
    if request.content.is_eof():  # it came with the head, as most do: there is nothing to wait for
        return request.content.read_nowait()
    body = Body(request, patience)
    is_short = request.content_length is not None and request.content_length <= _SHORT_BYTES
    return b"".join([piece async for piece in body]) if is_short else body


class Proxy:
    def __init__(self, functions: Functions, http: aiohttp.ClientSession, settings: Settings) -> None:
        self._functions = functions
        self._http = http
        self._settings = settings

    async def handle(self, request: web.Request, *, credentials: bool) -> web.StreamResponse:
        """`/function/NAME[/path]`, any method."""
        name, path = split(request.rel_url.raw_path)
        headers = forwarded(request, credentials=credentials)
        target = URL.build(path=path, query_string=request.rel_url.raw_query_string, encoded=True)
        ids = {header: headers[header] for header in (CALL_ID, START_TIME)}
        try:
            return await self._pass_on(request, name, target, headers, ids)
        except GatewayError as error:
            # Whether an error is the function's or ours; ours has this only where it has words.
            error.headers = {**ids, **({INTERNAL: "proxy"} if error.text else {})}
            raise

    async def _pass_on(
        self,
        request: web.Request,
        name: str,
        target: URL,
        headers: Mapping[str, str],
        ids: Mapping[str, str],
    ) -> web.StreamResponse:
        body = await received(request, self._settings.body_patience)
        async with self.call(name, request.method, target, headers, body) as answer:
            passed = passed_on(answer.headers)
            passed.update(ids)
            if is_short(answer):
                whole = await answer.read()
                return web.Response(body=whole, status=answer.status, reason=answer.reason, headers=passed)
            response = web.StreamResponse(status=answer.status, reason=answer.reason, headers=passed)
            response.content_length = answer.content_length
            await response.prepare(request)
            async for piece in answer.content.iter_any():
                await response.write(piece)
            await response.write_eof()
            return response

    def knows(self, name: str) -> bool:
        return bool(self._functions.services(name))

    @asynccontextmanager
    async def call(
        self,
        name: str,
        method: str,
        target: URL,
        headers: Mapping[str, str],
        body: Body | bytes | None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer of function `name`; raises what the gateway answers when there is none.

        What was not sent, or may be sent twice, is sent again for a while: to a function that is just
        being restarted, or to the version before when a new one dies.
        """
        try:
            async with self._answered(name, method, target, headers, body) as answer:
                yield answer
        finally:
            self._functions.count(name)

    @asynccontextmanager
    async def _answered(
        self,
        name: str,
        method: str,
        target: URL,
        headers: Mapping[str, str],
        body: Body | bytes | None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        await self._functions.awake(name)
        deadline = time.monotonic() + self._settings.connect_patience
        may_repeat = body is None and method in _IDEMPOTENT
        while True:
            with self._functions.route(name) as base:
                url = URL(base + str(target), encoded=True)
                try:
                    answer = await self._http.request(
                        method, url, headers=headers, data=body, allow_redirects=False
                    )
                    if is_short(answer):  # so that one that breaks off can be asked for again
                        await answer.read()
                except _NOT_CONNECTED:
                    again = True
                except asyncio.TimeoutError:
                    raise GatewayError(502, "") from None
                except (aiohttp.ClientError, OSError):
                    if isinstance(body, Body) and body.error:
                        raise body.error from None
                    again = may_repeat
                else:
                    async with answer:
                        yield answer
                    return
            if not again or time.monotonic() > deadline:
                raise GatewayError(500, f"Can't reach service for: {name}.")
            await asyncio.sleep(_RETRY_SECONDS)
            await self._functions.awake(name)  # it may have been scaled to 0 meanwhile


def is_short(answer: aiohttp.ClientResponse) -> bool:
    """Whether the answer is read whole before it is passed on; others are streamed."""
    return answer.method != "HEAD" and 0 <= (answer.content_length or -1) <= _SHORT_BYTES


def split(raw_path: str) -> tuple[str, str]:
    """`/function/NAME/a/b` as (`NAME`, `/a/b`); the path stays encoded as it came."""
    _, _, rest = raw_path.removeprefix("/").partition("/")
    name, _, path = rest.partition("/")
    return name.removesuffix(".openfaas-fn"), f"/{path}"


def forwarded(request: web.Request, *, credentials: bool = True) -> CIMultiDict[str]:
    """The request's headers as the function gets them; without `credentials` if those are the gateway's."""
    headers = passed_on(request.headers)
    if not credentials:
        headers.popall("Authorization", None)
    if request.content_length is not None:
        headers["Content-Length"] = str(request.content_length)
    headers["X-Forwarded-Host"] = request.host
    headers["X-Forwarded-For"] = ", ".join(
        filter(None, (request.headers.get("X-Forwarded-For"), request.remote))
    )
    if not _ID.fullmatch(headers.get(CALL_ID, "")):
        headers[CALL_ID] = str(uuid.uuid4())
    headers[START_TIME] = str(time.time_ns())
    return headers


def passed_on(headers: Mapping[str, str]) -> CIMultiDict[str]:
    """All but what concerns one connection, `Connection`'s own list included."""
    named = {part.strip().lower() for part in headers.get("Connection", "").split(",")}
    dropped = _HOP_BY_HOP | _REPLACED | named
    return CIMultiDict((key, value) for key, value in headers.items() if key.lower() not in dropped)
