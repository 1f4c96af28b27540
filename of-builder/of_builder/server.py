"""The HTTP service: routes, and how an error becomes an answer."""

from __future__ import annotations

import asyncio
import logging
import re
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

from sdk import __version__, signature
from sdk.builder import BEAT_SECONDS, Line
from sdk.errors import (
    Busy,
    CloudError,
    Failed,
    Malformed,
    Misconfigured,
    Missing,
    Refused,
    Superseded,
    Unauthorized,
    Unavailable,
)
from sdk.registry import Reference
from sdk.settings import read

from . import callers
from .build import CONTEXT_TAG
from .callers import Caller
from .kept import Log
from .service import Service, workplace
from .settings import Settings

NDJSON = "application/x-ndjson"
TAKES = (
    "POST /build: a signed tar; GET /image?image=&context=|tag=: an image's digest; GET /log?…: its log; "
    "DELETE /build?image=&tag=: nobody needs it any more; GET /publickey: for build secrets; GET /healthz, "
    "/readyz, /metrics"
)
PRUNE_SECONDS = 3600
# A signed query may be this old.
QUERY_SECONDS = 300
# Whoever asks more often gets the same answer.
READY_SECONDS = 5
# A client may take so long to read what it is sent.
SEND_SECONDS = 60
BEAT = Line(status="in_progress")
STOPPED = Line(
    status="failed",
    error="of-builder stopped the build: try again",
    code=Unavailable.code,
    reason="stopped",
)
_STATUSES = {
    kind.code: kind.status for kind in (Failed, Refused, Superseded, Misconfigured, Unavailable, Busy)
}

log = logging.getLogger("of-builder")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Server:
    """The routes, each in front of the service."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.settings = service.settings
        self._ready: tuple[float, bool, dict[str, Any]] = (float("-inf"), False, {})
        self._asking = asyncio.Lock()

    def app(self) -> web.Application:
        app = web.Application(middlewares=[answer_errors], client_max_size=0)
        app.add_routes(
            [
                web.get("/", self.describe),
                web.get("/healthz", self.healthz),
                web.get("/readyz", self.readyz),
                web.get("/metrics", self.metrics),
                web.get("/publickey", self.publickey),
                web.get("/image", self.image),
                web.get("/log", self.log),
                web.post("/build", self.build),
                web.delete("/build", self.overtaken),
            ]
        )
        app.cleanup_ctx.append(self._run)
        app.on_shutdown.append(self._stop)
        return app

    async def describe(self, request: web.Request) -> web.Response:
        return web.json_response({"name": "of-builder", "version": __version__, "takes": TAKES})

    async def healthz(self, request: web.Request) -> web.Response:
        return web.Response(text="OK\n")

    async def readyz(self, request: web.Request) -> web.Response:
        """Whether BuildKit and the registry answer, and what this BuildKit does not enforce."""
        async with self._asking:
            if time.monotonic() - self._ready[0] > READY_SECONDS:
                self._ready = (time.monotonic(), *await self._readiness())
        _, ready, told = self._ready
        return web.json_response({"ready": ready, **told}, status=200 if ready else 503)

    async def metrics(self, request: web.Request) -> web.Response:
        return web.Response(body=self.service.metrics.text(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def publickey(self, request: web.Request) -> web.Response:
        return web.json_response(self.service.key.describe())

    async def image(self, request: web.Request) -> web.Response:
        """The digest of an image by context digest or tag."""
        image, tag = self._asked(request, callers.known(self.settings))
        registry = self.service.registry(image)
        found = await asyncio.to_thread(registry.digest, image.path, tag)
        if not found:
            raise Missing(f"the registry has no {image.repository}:{tag}")
        return web.json_response({"image": f"{image.repository}:{tag}", "digest": found})

    async def log(self, request: web.Request) -> web.Response:
        """A build's log by context digest or tag; of a build that runs, what there is."""
        image, tag = self._asked(request, callers.readers(self.settings))
        text, whole = await self.service.log_of(image, tag)
        headers = {"X-Content-Type-Options": "nosniff", "X-Build-Status": "ended" if whole else "in_progress"}
        return web.Response(text=text, content_type="text/plain", charset="utf-8", headers=headers)

    async def build(self, request: web.Request) -> web.StreamResponse:
        """Build and push what is in the tar; the answer is a stream of lines, or one JSON object.

        What is wrong with the request is the status. A stream begins as soon as the build has a place in the
        queue, so that no client must be patient with silence.
        """
        service, running, job = self.service, None, None
        if request.headers.get("Content-Encoding"):  # a small one may be a large one on our disk
            raise Malformed("the tar has a Content-Encoding: send it as it is")
        with service.place():
            work = Path(tempfile.mkdtemp(prefix="build-", dir=service.folder))
            try:
                body = request.content.iter_chunked(256 * 1024)
                job = await service.receive(body, request.headers.get(signature.BUILDER_HEADER), work)
                with service.share(job):
                    running = service.begin(job, work)
                    async with running.follow(job.image) as lines:
                        told = service.tagged(lines, job, running.job)
                        if NDJSON in request.headers.get("Accept", ""):
                            return await stream(request, told)
                        return await whole(told)
            finally:
                if not running or running.job is not job:
                    shutil.rmtree(work, ignore_errors=True)

    async def overtaken(self, request: web.Request) -> web.Response:
        """End the builds of an image, or of all below that path, with one tag: but for whom else they run."""
        image, _ = self._asked(request, callers.known(self.settings))
        ended = sum(running.overtake(image) for running in self.service.builds.all)
        return web.json_response({"image": str(image), "ended": ended})

    def _asked(self, request: web.Request, known: Iterable[Caller]) -> tuple[Reference, str]:
        """The repository and the tag that a query is about. The path with its query is signed."""
        signatures = {caller: signature.Running(caller.keys) for caller in known}
        for running in signatures.values():
            running.update(request.raw_path.encode())
        caller = callers.signed_by(signatures, request.headers.get(signature.BUILDER_HEADER))
        query = request.query
        at = re.fullmatch(r"[0-9]{1,12}", query.get("at", ""))
        if not at or abs(time.time() - int(at[0])) > QUERY_SECONDS:
            raise Unauthorized("the query is too old, or the clocks differ")
        tag = CONTEXT_TAG + query["context"] if "context" in query else query.get("tag", "")
        image = Reference.parse(f"{query.get('image', '')}:{tag}")
        caller.check(image)
        return image, image.tag

    async def _readiness(self) -> tuple[bool, dict[str, Any]]:
        told: dict[str, Any] = {}
        ready = True
        for name, check in (("buildkit", self._check_buildkit), ("registry", self._check_registry)):
            try:
                told |= {name: "ok", **(await check())}
            except CloudError as error:
                told[name] = error.message
                ready = False
        return ready, told

    async def _check_buildkit(self) -> Mapping[str, Any]:
        await self.service.buildkit.worker()
        found = await self.service.watch.protections()
        await self.service.watch.check()
        return {"protections": dict(found.enforced), "not_enforced": found.missing}

    async def _check_registry(self) -> Mapping[str, Any]:
        if not self.settings.registry_api_url:
            return {"registry": "not asked: the setting registry_api_url is empty"}
        registry = self.service.registry(Reference(urlsplit(self.settings.registry_api_url).netloc, "x", "x"))
        await asyncio.to_thread(replace(registry, retries=0).ping)
        return {}

    async def _run(self, app: web.Application) -> AsyncIterator[None]:
        await self.service.buildkit.create()
        tasks = [asyncio.create_task(work) for work in (self._look(), self._prune())]
        yield
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _stop(self, app: web.Application) -> None:
        """Cancel the builds now: their clients can still be told, and nothing waits for their end."""
        for task in self.service.requests:
            task.cancel()
        await asyncio.gather(*self.service.requests, return_exceptions=True)
        await asyncio.gather(*(build.task for build in self.service.builds.all), return_exceptions=True)

    async def _look(self) -> None:
        """Tell the operator at once what this BuildKit does not enforce."""
        try:
            missing = (await self.service.watch.protections()).missing
            await self.service.watch.check()
        except CloudError as error:
            log.warning("%s", error.message)
        else:
            log.info("not enforced by this BuildKit: %s", ", ".join(missing) or "nothing")

    async def _prune(self) -> None:
        while True:
            await asyncio.sleep(PRUNE_SECONDS)
            try:
                pruned = await self.service.buildkit.prune()
            except (CloudError, OSError):  # no process more, say: an hour later it may go well
                pruned = False
            if not pruned:
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
            if line.status != "in_progress":
                beating.cancel()  # nothing comes after the last line, while the build's log is kept
            with _patience(request):
                await response.write(encode(line))
    finally:
        beating.cancel()
        if line.status == "in_progress":
            with suppress(ConnectionError), _patience(request):
                await response.write(encode(STOPPED))
                await response.write_eof()
    await response.write_eof()
    return response


@contextmanager
def _patience(request: web.Request) -> Iterator[None]:
    """Cut the connection of a client that does not read: it would keep its place for ever."""
    transport = request.transport
    later = asyncio.get_running_loop().call_later
    cut = later(SEND_SECONDS, transport.abort) if transport else None
    try:
        yield
    finally:
        if cut:
            cut.cancel()


async def _beat(response: web.StreamResponse) -> None:
    with suppress(ConnectionError):
        while True:
            await asyncio.sleep(BEAT_SECONDS)
            await response.write(encode(BEAT))


async def whole(lines: AsyncGenerator[Line, None]) -> web.Response:
    """The last line with the whole log, once the build has ended."""
    logged, last = Log(), STOPPED
    async for last in lines:
        logged.add(last.log)
    status = 200 if last.status == "success" else _STATUSES.get(last.code, Failed.status)
    headers = {"Retry-After": "5"} if status == Unavailable.status else {}
    body = encode(replace(last, log=logged.lines()))
    return web.Response(body=body, status=status, content_type="application/json", headers=headers)


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
    try:
        settings = read(Settings)
        host, port = settings.address
        with workplace(settings.work_folder) as folder:
            app = Server(Service(settings, folder)).app()
            web.run_app(app, host=host, port=port, handler_cancellation=True, access_log=None, print=None)
    except CloudError as error:
        sys.exit(f"of-builder: {error.message}")
