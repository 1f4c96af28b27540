"""The routes of the local gateway, who may call them, and what goes on beside them."""

from __future__ import annotations

import asyncio
import logging
import platform
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from typing import Any

from aiohttp import web
from aiohttp.abc import AbstractResolver
from aiohttp.helpers import ETAG_ANY
from yarl import URL

from sdk import __version__, naming

from . import scaling
from .async_queue import AsyncQueue
from .callbacks import CALLBACK_URL, Callbacks
from .deployment import NAMESPACE, check_namespace, decode, parse
from .errors import PLAIN, GatewayError
from .functions import Functions
from .guard import Guard, not_for_pages
from .logs import Logs
from .proxy import CALL_ID, START_TIME, Handler, Proxy, client, forwarded, split
from .queue_store import Call, kept
from .schedule import Schedule
from .secrets import Secrets
from .secrets import parse as parse_secret
from .settings import Settings
from .swarm import Swarm

IMAGE_LABEL = "com.openfaas.cloud.built"
# After its start: one that is restarted now and then gets to it, too.
_FIRST_PRUNE_SECONDS, _PRUNE_SECONDS = 60, 1800
_DEPLOY_BYTES = 1024**2
_WAIT = re.compile(r"\bwait=([0-9]{1,4})\b")
_LONGEST_WAIT_SECONDS = 25

# Bodies go through as they come, and a caller that goes away ends its call.
SERVER: Mapping[str, Any] = {"auto_decompress": False, "handler_cancellation": True}

log = logging.getLogger("gateway")


class Gateway:
    """What the routes work with; built and taken down with the server."""

    functions: Functions
    secrets: Secrets
    proxy: Proxy
    queue: AsyncQueue
    callbacks: Callbacks
    logs: Logs

    def __init__(
        self, settings: Settings, swarm: Swarm | None = None, resolver: AbstractResolver | None = None
    ) -> None:
        self.settings = settings
        self.guard = Guard(settings.secret_mount_path)
        self._swarm = swarm
        self._resolver = resolver

    def app(self) -> web.Application:
        middlewares = (answer_errors, not_for_pages, self.guard.authenticated, self.one_namespace)
        app = web.Application(middlewares=middlewares, client_max_size=_DEPLOY_BYTES)
        app.add_routes(
            [
                web.get("/healthz", self.healthz),
                web.get("/system/info", self.info),
                web.get("/system/functions", self.list_functions),
                web.post("/system/functions", self.create_function),
                web.put("/system/functions", self.update_function),
                web.delete("/system/functions", self.delete_function),
                web.get("/system/function/{name}", self.function_status),
                web.post("/system/scale-function/{name}", self.scale_function),
                web.get("/system/namespaces", self.list_namespaces),
                web.get("/system/namespace/{name}", self.namespace),
                web.get("/system/secrets", self.list_secrets),
                web.post("/system/secrets", self.set_secret),
                web.put("/system/secrets", self.set_secret),
                web.delete("/system/secrets", self.delete_secret),
                web.get("/system/logs", self.function_logs),
                web.get("/system/queue", self.list_calls),
                web.post(r"/system/queue/{id:\d{1,18}}", self.retry_call),
                web.delete(r"/system/queue/{id:\d{1,18}}", self.drop_call),
                web.post("/async-function/{name}", self.enqueue),
                web.post("/async-function/{name}/{path:.*}", self.enqueue),
                web.route("*", "/function/{name}", self.invoke),
                web.route("*", "/function/{name}/{path:.*}", self.invoke),
            ]
        )
        app.cleanup_ctx.append(self._run)
        app.on_shutdown.append(self._end_waits)
        return app

    async def _end_waits(self, app: web.Application) -> None:
        """Who follows a log, or waits for a status, would keep the gateway from stopping for a while."""
        self.logs.end()
        self.functions.end_waits()

    async def healthz(self, request: web.Request) -> web.Response:
        return web.Response()

    async def info(self, request: web.Request) -> web.Response:
        version = {"sha": "", "release": __version__}
        provider = {"provider": "openfaas-cloud-local", "version": version, "orchestration": "swarm"}
        told = {"provider": provider, "version": version, "arch": platform.machine()}
        return web.json_response({**told, "upstream_timeout": self.settings.upstream_timeout})

    async def list_functions(self, request: web.Request) -> web.Response:
        return web.json_response(await self.functions.statuses())

    async def function_status(self, request: web.Request) -> web.Response:
        status = await self.functions.status(request.match_info["name"], _wait(request))
        if not status:
            return web.Response(status=404)
        answer = web.json_response(status)
        answer.etag = status["etag"]
        return answer

    async def scale_function(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        await self.functions.scale(name, scaling.parse(name, await request.read()))
        return web.Response()

    async def list_namespaces(self, request: web.Request) -> web.Response:
        return web.json_response([NAMESPACE])

    async def namespace(self, request: web.Request) -> web.Response:
        """What faasd answers also for its own: nobody made this one, and nobody can change it."""
        raise GatewayError(404, f"namespace {request.match_info['name']} not found")

    async def create_function(self, request: web.Request) -> web.Response:
        await self.functions.create(parse(await request.read()))
        return web.Response()

    async def update_function(self, request: web.Request) -> web.Response:
        await self.functions.update(parse(await request.read()), over=_over(request))
        return web.Response()

    async def delete_function(self, request: web.Request) -> web.Response:
        wanted = decode(await request.read(), dict[str, str])
        check_namespace(wanted.get("namespace", ""))
        await self.functions.delete(wanted.get("functionName", ""), over=_over(request))
        return web.Response()

    async def list_secrets(self, request: web.Request) -> web.Response:
        names = await self.secrets.names()
        return web.json_response([{"name": name, "namespace": NAMESPACE} for name in names])

    async def set_secret(self, request: web.Request) -> web.Response:
        secret = parse_secret(await request.read())
        await self.secrets.set(secret)
        await self.functions.roll_secret(secret.name)
        await self.secrets.prune(secret.name)
        return web.Response()

    async def delete_secret(self, request: web.Request) -> web.Response:
        name = parse_secret(await request.read()).name
        if users := self.functions.users_of_secret(name):
            raise GatewayError(500, f"secret {name} is used by {', '.join(users)}")
        await self.secrets.delete(name)
        return web.Response()

    async def function_logs(self, request: web.Request) -> web.StreamResponse:
        return await self.logs.handle(request)

    async def list_calls(self, request: web.Request) -> web.Response:
        return web.json_response(self.queue.calls())

    async def retry_call(self, request: web.Request) -> web.Response:
        await self.queue.retry(int(request.match_info["id"]))
        return web.Response(status=202)

    async def drop_call(self, request: web.Request) -> web.Response:
        await self.queue.drop(int(request.match_info["id"]))
        return web.Response()

    async def invoke(self, request: web.Request) -> web.StreamResponse:
        return await self.proxy.handle(request, credentials=not self.guard.knows(request))

    async def enqueue(self, request: web.Request) -> web.Response:
        """Keep the call, also of a function that is yet to come; never of what no function can be named."""
        name, path = split(request.rel_url.raw_path)
        if not naming.SERVICE.fullmatch(name):
            raise web.HTTPNotFound
        query = request.rel_url.raw_query_string
        target = URL.build(path=path, query_string=query, encoded=True)
        headers = forwarded(request, credentials=not self.guard.knows(request))
        headers.popall("Content-Length", None)
        ids = {header: headers[header] for header in (CALL_ID, START_TIME)}
        try:
            if asked := headers.get(CALLBACK_URL, ""):
                self.callbacks.check(asked)
            await self.queue.put(Call(name, str(target), kept(headers), await request.read()))
        except GatewayError as error:
            error.headers = ids
            raise
        return web.Response(status=202, headers=ids)

    @web.middleware
    async def one_namespace(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Whoever asks for another namespace must not be shown this one's functions."""
        check_namespace(request.query.get("namespace", "") if request.path.startswith("/system/") else "")
        return await handler(request)

    async def _run(self, app: web.Application) -> AsyncIterator[None]:
        swarm = self._swarm or Swarm(self.settings)
        async with client(self.settings, self._resolver) as http:
            self.secrets = Secrets(swarm)
            self.functions = Functions(swarm, self.secrets, http, self.settings)
            self.proxy = Proxy(self.functions, http, self.settings)
            self.callbacks = Callbacks(self.proxy, self.settings)
            self.queue = AsyncQueue(self.proxy, self.callbacks, self.settings)
            self.logs = Logs(self.functions)
            await self.functions.load()
            self.queue.load()
            schedule = Schedule(self.functions.deployments, self.queue.put)
            beside = [asyncio.create_task(work) for work in (_prune(swarm), schedule.run())]
            yield
            for task in beside:
                task.cancel()
            await self.queue.close()
            await self.callbacks.close()
            await self.logs.close()
            await self.functions.close()


def _wait(request: web.Request) -> float:
    """How long the caller would rather wait, in seconds (https://www.rfc-editor.org/rfc/rfc7240#section-4.3)."""
    preferred = _WAIT.search(request.headers.get("Prefer", ""))
    return min(int(preferred[1]), _LONGEST_WAIT_SECONDS) if preferred else 0


def _over(request: web.Request) -> frozenset[str]:
    """The tags in If-Match: what may be written over. Without any, it is whatever is there."""
    if "If-Match" not in request.headers:
        return frozenset()
    tags = frozenset(tag.value for tag in request.if_match or () if not tag.is_weak)
    if not tags:
        raise GatewayError(400, "If-Match has no tag that a status was answered with")
    return frozenset() if ETAG_ANY in tags else tags


async def _prune(swarm: Swarm) -> None:
    """Images that were built here and are no longer used go, so that the disk stays bounded."""
    await asyncio.sleep(_FIRST_PRUNE_SECONDS)
    while True:
        with suppress(GatewayError):
            await swarm.prune_images(IMAGE_LABEL)
        await asyncio.sleep(_PRUNE_SECONDS)


@web.middleware
async def answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """An error is its status and one line of plain text, as the OpenFaaS gateway has it."""
    try:
        return await handler(request)
    except GatewayError as error:
        headers = {**PLAIN, **error.headers} if error.text else error.headers
        text = f"{error.text}\n" if error.text else ""
        return web.Response(status=error.status, text=text, headers=headers)
    except web.HTTPNotFound:
        return web.Response(status=404, text="404 page not found\n", headers=PLAIN)
    except web.HTTPMethodNotAllowed as error:
        return web.Response(status=405, headers={"Allow": ",".join(sorted(error.allowed_methods))})
