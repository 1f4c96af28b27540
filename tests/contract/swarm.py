"""A Swarm in memory for the local gateway: services whose tasks are small servers on loopback."""

from __future__ import annotations

import asyncio
import json
import socket
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.test_utils import TestServer

from local.gateway.deployment import Deployment
from local.gateway.errors import GatewayError
from local.gateway.secrets import NAME
from local.gateway.swarm import CANDIDATE, Generation, Task

from .fakes import Answer, Server


@dataclass
class Behaviour:
    """How the tasks of an image behave; `early_exits` of them lie behind the one that runs.

    So do as many that were rejected as their image was `removed` from under them.

    Of a death after `dies_after`, Swarm says nothing for `late`; with it, the task's port is closed at once.
    """

    ready_after: float = 0.0
    early_exits: int = 0
    dies_after: float | None = None
    late: float = 0.0
    rejected: str = ""
    removed: int = 0
    answer: Callable[[web.Request], Awaitable[web.StreamResponse]] | None = None
    ready_paths: Sequence[str] = ("/_/ready",)


@dataclass
class Service:
    """`generation` is what the labels say, not what the gateway thinks."""

    generation: Generation
    behaviour: Behaviour
    server: TestServer | None = None
    calls: list[str] = field(default_factory=list)
    started: float = 0.0


class FakeSwarm:
    """The methods of local.gateway.swarm.Swarm; `behaviours` by image, names resolved by `Resolver`.

    Each name of a method in `hiccups` makes one call of it fail. After a service was made, its caller
    waits for `slowness`: as in a thread, no cancellation undoes what was asked for.
    """

    def __init__(self) -> None:
        self.services: dict[str, Service] = {}
        self.behaviours: dict[str, Behaviour] = {}
        self.unpullable: set[str] = set()
        self.secret_rows: list[dict[str, Any]] = []
        self.removed: list[str] = []
        self.created: list[str] = []
        self.hiccups: list[str] = []
        self.slowness = 0.0

    async def generations(self, function: str = "") -> list[Generation]:
        all_of_them = (replace(service.generation) for service in self.services.values())
        return [found for found in all_of_them if function in ("", found.function)]

    async def create(
        self, deployment: Deployment, number: int, secrets: Mapping[str, tuple[str, str]]
    ) -> Generation:
        service_id = uuid.uuid4().hex
        name = f"{deployment.service}-{service_id[:8]}"
        generation = Generation(
            service_id, name, deployment.service, number, deployment, CANDIDATE, replicas=deployment.replicas
        )
        behaviour = self.behaviours.get(deployment.image, Behaviour())
        service = Service(replace(generation), behaviour)
        self.services[service_id] = service
        self.created.append(deployment.image)
        service.started = asyncio.get_running_loop().time()
        await self._start(service)
        await asyncio.sleep(self.slowness)
        return generation

    async def mark(self, generation: Generation, *, replicas: int | None = None) -> None:
        self._hiccup("mark")
        service = self.services.get(generation.service_id)
        if not service:
            return
        before = service.generation.replicas
        now = before if replicas is None else replicas
        service.generation = replace(generation, is_ready=False, is_told=False, in_flight=0, replicas=now)
        if before and not now:
            await self._stop(service)
        elif now and not before:
            service.started = asyncio.get_running_loop().time()
            await self._start(service)

    async def remove(self, generation: Generation) -> None:
        self._hiccup("remove")
        service = self.services.pop(generation.service_id, None)
        if service:
            self.removed.append(generation.deployment.image)
            await self._stop(service)

    async def tasks(self, service_id: str | None = None) -> Mapping[str, list[Task]]:
        found = {}
        for key, service in self.services.items():
            if service_id in (None, key):
                found[key] = self._tasks(service)
        return found

    async def check_image(self, image: str) -> None:
        if image in self.unpullable:
            raise GatewayError(400, f"unable to pull image {image}: cannot pull: not found")

    async def secrets(self, label: str) -> Sequence[Mapping[str, Any]]:
        return self.secret_rows

    async def create_secret(self, name: str, value: bytes, labels: Mapping[str, str]) -> None:
        spec = {"Name": name, "Labels": {NAME: labels[NAME]}}
        self.secret_rows.append({"ID": uuid.uuid4().hex, "Spec": spec, "value": value})

    async def remove_secret(self, secret_id: str) -> bool:
        self.secret_rows = [row for row in self.secret_rows if row["ID"] != secret_id]
        return True

    async def prune_images(self, label: str) -> None:
        pass

    def _hiccup(self, method: str) -> None:
        if method in self.hiccups:
            self.hiccups.remove(method)
            raise GatewayError(503, "the engine does not answer")

    def _tasks(self, service: Service) -> list[Task]:
        """The newest first; each is the same task, by its id, in every answer."""
        found = self._states(service)
        of = service.generation.service_id
        return [replace(task, id=f"{of}-{len(found) - at}", is_made=True) for at, task in enumerate(found)]

    def _states(self, service: Service) -> list[Task]:
        behaviour, age = service.behaviour, asyncio.get_running_loop().time() - service.started
        if behaviour.rejected:
            return [_rejected(behaviour.rejected)] * (1 + int(age / 0.05))
        dead = [Task("failed", "task: non-zero exit (1)", 1, "", "shutdown")]
        history = dead * behaviour.early_exits + [_rejected("No such image: x")] * behaviour.removed
        if behaviour.dies_after is not None and age > behaviour.dies_after + behaviour.late:
            return dead * (1 + int(age / (behaviour.dies_after + 0.05))) + history
        alive = Task("running", "", None, service.generation.service, "running")
        return [alive] * service.generation.replicas + history

    async def _start(self, service: Service) -> None:
        app = web.Application()

        async def handle(request: web.Request) -> web.StreamResponse:
            service.calls.append(request.path)
            age = asyncio.get_running_loop().time() - service.started
            if request.path.startswith("/_/"):
                if request.path not in service.behaviour.ready_paths:
                    return web.Response(status=404)
                return web.Response(status=200 if age >= service.behaviour.ready_after else 503)
            if service.behaviour.answer:
                return await service.behaviour.answer(request)
            return web.Response(text=service.generation.deployment.image)

        app.router.add_route("*", "/{path:.*}", handle)
        if service.behaviour.late and service.behaviour.dies_after is not None:
            asyncio.get_running_loop().call_later(
                service.behaviour.dies_after, lambda: asyncio.ensure_future(self._stop(service))
            )
        service.server = TestServer(app)
        await service.server.start_server(
            shutdown_timeout=0.1, auto_decompress=False
        )  # then its calls break off

    async def _stop(self, service: Service) -> None:
        if service.server:
            await service.server.close()
            service.server = None

    async def close(self) -> None:
        for service in self.services.values():
            await self._stop(service)

    def of(self, image: str) -> Service:
        return next(
            service for service in self.services.values() if service.generation.deployment.image == image
        )


class FakeEngine(Server):
    """Docker's API for one who asks for an image: there is none here, and the registry answers `registry`."""

    def __init__(self, registry: int) -> None:
        super().__init__()
        self.registry = registry

    def answer(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        if path == "/version":
            return 200, json.dumps({"ApiVersion": "1.45"}).encode()
        status, said = (self.registry, "denied") if "/distribution/" in path else (404, "no such image")
        return status, json.dumps({"message": said}).encode()


class Resolver(AbstractResolver):
    """Resolves a service's name to its server, as the DNS of an overlay network does."""

    def __init__(self, swarm: FakeSwarm) -> None:
        self._swarm = swarm

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        for service in self._swarm.services.values():
            if service.generation.service == host and service.server:
                found = ResolveResult(
                    hostname=host,
                    host="127.0.0.1",
                    port=service.server.port or 0,
                    family=family,
                    proto=0,
                    flags=0,
                )
                return [found]
        raise OSError(f"no such name: {host}")

    async def close(self) -> None:
        pass


def _rejected(error: str) -> Task:
    return Task("rejected", error, None, "", "shutdown")
