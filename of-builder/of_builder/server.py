"""The HTTP service: routes, and how an error becomes an answer."""

from __future__ import annotations

import asyncio
import logging
import re
import shutil
import tempfile
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import aiohttp
import msgspec
from aiohttp import web

from sdk import __version__, secrets, signature
from sdk.builder import BEAT_SECONDS, Line
from sdk.errors import Busy, CloudError, Malformed, Missing, Unauthorized, Unavailable
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
# A sender that is gone without a word must not keep its place.
RECEIVE_SECONDS = 300
BEAT = Line(status="in_progress")
STOPPED = Line(status="failed", error="of-builder stopped the build: try again", code=Unavailable.code)

log = logging.getLogger("of-builder")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Service:
    """The routes' shared state: the settings, and who builds and waits."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.tasks: set[asyncio.Task[object]] = set()  # one a request, from its first byte on
        self.queue: list[Path] = []  # the work folders of what builds, and after them of what waits
        self.moved = asyncio.Event()  # set, and replaced, when the queue has moved

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
        app.on_shutdown.append(self._stop)
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
        at = re.fullmatch(r"[0-9]{1,12}", query.get("at", ""))
        if not at or abs(time.time() - int(at[0])) > QUERY_SECONDS:
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
        """Build and push what is in the tar; the answer is a stream of lines, or one JSON object.

        What is wrong with the request is the status. A stream begins as soon as the build has a place in the
        queue, so that no client must be patient with silence.
        """
        with (
            self._place(),
            tempfile.TemporaryDirectory(prefix="build-", dir=self.settings.work_folder) as folder,
        ):
            work = Path(folder)
            job = await self._job(request, work)
            async with aclosing(self._lines(job, work)) as lines:
                if NDJSON in request.headers.get("Accept", ""):
                    return await stream(request, lines)
                return await whole(lines)

    @contextmanager
    def _place(self) -> Iterator[None]:
        """A place for a request with its files: those that arrive count too."""
        if len(self.tasks) >= self.settings.parallel_builds + self.settings.queued_builds:
            raise Unavailable(f"{len(self.tasks)} builds are running or waiting already")
        task = asyncio.current_task()
        assert task
        self.tasks.add(task)
        try:
            yield
        finally:
            self.tasks.remove(task)

    async def _job(self, request: web.Request, work: Path) -> tarball.Job:
        limit, tar = self.settings.request_limit_mb * 1024**2, work / "request.tar"
        body = request.content.iter_chunked(256 * 1024)
        header = request.headers.get(signature.BUILDER_HEADER)
        try:
            receiving = tarball.receive(body, tar, header, self._keys(), limit)
            await asyncio.wait_for(receiving, RECEIVE_SECONDS)
        except asyncio.TimeoutError:
            raise Unavailable(f"the request has not arrived within {RECEIVE_SECONDS} s") from None
        entries = self.settings.context_files_limit
        unpack = asyncio.to_thread(tarball.unpack, tar, work, entries_limit=entries, bytes_limit=limit)
        unpacking = asyncio.ensure_future(unpack)
        try:
            job = await asyncio.shield(unpacking)
        finally:
            # A thread can't be cancelled, and would write into the folder that is being removed.
            await asyncio.gather(unpacking, return_exceptions=True)
        tar.unlink()
        return job

    async def _lines(self, job: tarball.Job, work: Path) -> AsyncGenerator[Line, None]:
        """The build's own lines, after those that say how many builds are ahead."""
        image = job.config.reference
        self.queue.append(work)
        try:
            while (ahead := self.queue.index(work)) >= self.settings.parallel_builds:
                moved, said = self.moved, f"waiting: {ahead} builds are ahead"
                yield Line([said], image, "in_progress", code=Busy.code)
                await moved.wait()
            log.info("building %s", image)
            async with aclosing(build(job, work, self.settings)) as lines:
                async for line in lines:
                    yield line
        except (CloudError, OSError) as error:  # a stream has its status already: only a line can tell
            yield Line([], image, "failed", str(error), Unavailable.code)
        finally:
            self.queue.remove(work)
            self.moved.set()
            self.moved = asyncio.Event()

    def _keys(self) -> Keys:
        return secrets.read("builder-secret", self.settings.secret_mount_path)

    async def _run(self, app: web.Application) -> AsyncIterator[None]:
        await create_builder(self.settings)
        async with aiohttp.ClientSession() as self.http:
            pruning = asyncio.create_task(self._prune())
            yield
            pruning.cancel()

    async def _stop(self, app: web.Application) -> None:
        """Cancel the builds now: their clients can still be told, and nothing waits for their end."""
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    async def _prune(self) -> None:
        while True:
            await asyncio.sleep(PRUNE_SECONDS)
            if not await prune(self.settings):
                log.warning("the build cache could not be pruned")


async def stream(request: web.Request, lines: AsyncGenerator[Line, None]) -> web.StreamResponse:
    """One JSON object a line, as it happens, and one every few seconds even if nothing does.

    faas-cli takes a stream that just ends for a success, so the last line always says how it went.
    """
    response = web.StreamResponse(headers={"Content-Type": NDJSON})
    await response.prepare(request)
    beating, line = asyncio.create_task(_beat(response)), BEAT
    try:
        async for line in lines:
            await response.write(encode(line))
    finally:
        beating.cancel()
        if line.status == "in_progress":
            with suppress(ConnectionError):
                await response.write(encode(STOPPED))
    await response.write_eof()
    return response


async def _beat(response: web.StreamResponse) -> None:
    with suppress(ConnectionError):
        while True:
            await asyncio.sleep(BEAT_SECONDS)
            await response.write(encode(BEAT))


async def whole(lines: AsyncGenerator[Line, None]) -> web.Response:
    """The last line with the whole log, once the build has ended."""
    logged: list[str] = []
    last = Line(status="failed", error="the build ended without a word")
    async for last in lines:
        logged += last.log
    status = {"success": 200}.get(last.status, 503 if last.code == Unavailable.code else 422)
    body = encode(replace(last, log=logged))
    return web.Response(body=body, status=status, content_type="application/json")


def encode(line: Line) -> bytes:
    """The line as JSON without its empty fields, as the protocol has it."""
    rows = {key: value for key, value in msgspec.to_builtins(line).items() if value}
    return msgspec.json.encode(rows) + b"\n"


@web.middleware
async def answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except (CloudError, OSError) as raised:
        # The disk is full, say: none of the sender's doing, and it may pass.
        error = raised if isinstance(raised, CloudError) else Unavailable(f"of-builder: {raised.strerror}")
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
