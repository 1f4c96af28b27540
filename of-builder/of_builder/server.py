"""The HTTP service: routes, and how an error becomes an answer."""

from __future__ import annotations

import asyncio
import logging
import shutil
import tempfile
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import aiohttp
import msgspec
from aiohttp import web

from sdk import __version__, secrets, signature
from sdk.builder import Line
from sdk.errors import CloudError, Malformed, Missing, Unauthorized, Unavailable
from sdk.secrets import Keys
from sdk.settings import read

from . import registry, tarball
from .build import CONTEXT_TAG, build, create_builder, prune
from .settings import Settings

NDJSON = "application/x-ndjson"
TAKES = "POST /build: a signed tar; GET /image?image=&context=|tag=: an image's digest; GET /healthz"
PRUNE_SECONDS = 3600
# A signed query may be this old.
QUERY_SECONDS = 300

log = logging.getLogger("of-builder")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Service:
    """The routes' shared state: the settings, and who builds and waits."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.building = asyncio.Semaphore(settings.parallel_builds)
        self.waiting = 0

    def app(self) -> web.Application:
        app = web.Application(middlewares=[answer_errors], client_max_size=0)
        app.add_routes(
            [
                web.get("/", self.describe),
                web.get("/healthz", self.healthz),
                web.get("/image", self.image),
                web.post("/build", self.build),
            ]
        )
        app.cleanup_ctx.append(self._run)
        return app

    async def describe(self, request: web.Request) -> web.Response:
        return web.json_response({"name": "of-builder", "version": __version__, "takes": TAKES})

    async def healthz(self, request: web.Request) -> web.Response:
        return web.Response(text="OK\n")

    async def image(self, request: web.Request) -> web.Response:
        """The digest of an image by context digest or tag. The path with its query is signed."""
        target = request.raw_path.encode()
        signature.verify(target, request.headers.get(signature.BUILDER_HEADER), self._keys())
        query = request.query
        if not query.get("at", "").isdigit() or abs(time.time() - int(query["at"])) > QUERY_SECONDS:
            raise Unauthorized("the query is too old, or the clocks differ")
        tag = CONTEXT_TAG + query["context"] if "context" in query else query.get("tag", "")
        found = await registry.digest(
            self.http,
            query.get("image", ""),
            tag,
            api_url=self.settings.registry_api_url,
            insecure=self.settings.insecure,
        )
        if not found:
            raise Missing(f"the registry has no {query.get('image')}:{tag}")
        return web.json_response({"image": f"{query['image']}:{tag}", "digest": found})

    async def build(self, request: web.Request) -> web.StreamResponse:
        """Build and push what is in the tar; the answer is a stream of lines, or one JSON object."""
        with tempfile.TemporaryDirectory(prefix="build-", dir=self.settings.work_folder) as folder:
            work = Path(folder)
            job = await self._job(request, work)
            async with self._slot(), aclosing(build(job, work, self.settings)) as lines:
                log.info("building %s", job.config.reference)
                if NDJSON in request.headers.get("Accept", ""):
                    return await stream(request, lines)
                return await whole(lines)

    async def _job(self, request: web.Request, work: Path) -> tarball.Job:
        limit, tar = self.settings.request_limit_mb * 1024**2, work / "request.tar"
        header = request.headers.get(signature.BUILDER_HEADER)
        await tarball.receive(request.content.iter_chunked(256 * 1024), tar, header, self._keys(), limit)
        job = await asyncio.to_thread(
            tarball.unpack,
            tar,
            work,
            entries_limit=self.settings.context_files_limit,
            bytes_limit=limit,
        )
        tar.unlink()
        return job

    @asynccontextmanager
    async def _slot(self) -> AsyncIterator[None]:
        if self.waiting >= self.settings.queued_builds:
            raise Unavailable(f"{self.waiting} builds are waiting already")
        self.waiting += 1
        try:
            await self.building.acquire()
        finally:
            self.waiting -= 1
        try:
            yield
        finally:
            self.building.release()

    def _keys(self) -> Keys:
        return secrets.read("builder-secret", self.settings.secret_mount_path)

    async def _run(self, app: web.Application) -> AsyncIterator[None]:
        work = Path(self.settings.work_folder)
        await create_builder(self.settings, work)
        async with aiohttp.ClientSession() as self.http:
            pruning = asyncio.create_task(self._prune(work))
            yield
            pruning.cancel()

    async def _prune(self, work: Path) -> None:
        while True:
            await asyncio.sleep(PRUNE_SECONDS)
            await prune(self.settings, work)


async def stream(request: web.Request, lines: AsyncGenerator[Line, None]) -> web.StreamResponse:
    """One JSON object a line, as it happens."""
    response = web.StreamResponse(headers={"Content-Type": NDJSON})
    await response.prepare(request)
    async for line in lines:
        await response.write(encode(line) + b"\n")
    await response.write_eof()
    return response


async def whole(lines: AsyncGenerator[Line, None]) -> web.Response:
    """The last line with the whole log, once the build has ended."""
    logged: list[str] = []
    last = Line(status="failed", error="the build ended without a word")
    async for last in lines:
        logged += last.log
    status = {"success": 200}.get(last.status, 503 if last.code == Unavailable.code else 422)
    body = encode(replace(last, log=logged)) + b"\n"
    return web.Response(body=body, status=status, content_type="application/json")


def encode(line: Line) -> bytes:
    """The line as JSON without its empty fields, as the protocol has it."""
    rows = {key: value for key, value in msgspec.to_builtins(line).items() if value}
    return msgspec.json.encode(rows)


@web.middleware
async def answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except CloudError as error:
        log.warning("%s %s: %s %s", request.method, request.path, error.status, error.message)
        headers = {"Retry-After": str(error.retry_after)} if isinstance(error, Unavailable) else None
        return web.json_response(error.body(), status=error.status, headers=headers)
    except web.HTTPException as error:
        body = Malformed(f"{request.method} {request.path}: {error.reason}; this takes {TAKES}").body()
        return web.json_response(body, status=error.status)


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
    settings = read(Settings)
    host, port = settings.address
    for old in Path(settings.work_folder).glob("build-*"):
        shutil.rmtree(old, ignore_errors=True)  # of a process that was killed
    web.run_app(
        Service(settings).app(),
        host=host,
        port=port,
        handler_cancellation=True,
        access_log=None,
    )
