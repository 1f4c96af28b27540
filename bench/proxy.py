"""local/gateway between a caller and a fast function, beside the function called directly."""

from __future__ import annotations

import socket
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult

from local.gateway.app import SERVER, Gateway
from local.gateway.deployment import Deployment
from local.gateway.settings import Settings
from local.gateway.swarm import LIVE, Generation, Swarm, Task

from . import clients, served
from .measure import Measure, Samples, interleaved
from .served import Served

_CLIENTS, _REQUESTS = 8, 150
_HANDLER = "def handle(event, context):\n    return {'statusCode': 200, 'body': 'hello'}\n"


class OneFunction:
    """A Swarm with one function in it: calls go by the gateway's table, the engine is not asked."""

    async def generations(self, function: str = "") -> list[Generation]:
        deployment = Deployment(service="fast", image="fast")
        return [Generation("1", "fast-1", "fast", 1, deployment, LIVE, is_ready=True)]

    async def tasks(self, service_id: str | None = None) -> Mapping[str, list[Task]]:
        return {}

    async def secrets(self, label: str) -> Sequence[Mapping[str, Any]]:
        return ()


class Resolver(AbstractResolver):
    """The function's name is this machine's, at its own port."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        return [
            ResolveResult(hostname=host, host="127.0.0.1", port=self._port, family=family, proto=0, flags=0)
        ]

    async def close(self) -> None:
        pass


@contextmanager
def both() -> Iterator[tuple[Served, Served]]:
    """The gateway, and the function behind it."""
    with tempfile.TemporaryDirectory(prefix="bench-proxy-") as folder:
        work, port = Path(folder), served.free_port()
        handler = work / "handler"
        handler.mkdir()
        (handler / "handler.py").write_text(_HANDLER)
        with served.function(handler, work) as function:
            command = ("-m", "bench.proxy", str(port), str(function.port), folder)
            with served.program(command, port, {"TMPDIR": folder}) as gateway:
                yield gateway, function


def _call(repeat: int) -> Samples:
    through = clients.request("POST", "/function/fast", {"Content-Type": "text/plain"}, b"hello")
    direct = clients.request("POST", "/", {"Content-Type": "text/plain"}, b"hello")
    with both() as (gateway, function):

        def per_request(server: Served, whole: bytes) -> float:
            return 1000 * clients.pace(server.port, whole, 200, _CLIENTS, _REQUESTS)

        return interleaved(
            repeat, partial(per_request, gateway, through), partial(per_request, function, direct)
        )


MEASURES = (
    Measure(
        "gateway_proxy",
        "a call of a fast function through local/gateway, 8 clients, per request",
        "the function called directly",
        "ms",
        2,
        _call,
    ),
)


def main(port: int, function: int, folder: str) -> None:
    settings = Settings(
        secret_mount_path=str(served.secret_folder(Path(folder))), queue_path=f"{folder}/queue"
    )
    app = Gateway(settings, cast(Swarm, OneFunction()), Resolver(function)).app()
    web.run_app(app, host="127.0.0.1", port=port, access_log=None, print=None, **SERVER)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
