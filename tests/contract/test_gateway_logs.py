"""The local gateway's reader of logs, against an engine at a socket of its own."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from local.gateway import logs
from local.gateway.logs import Logs


async def answered(folder: Path) -> list[dict[str, str]]:
    """The log of a function with two services, of which the engine never ends the first one's."""

    stopped = asyncio.Event()

    async def engine(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        line = f"2026-01-01T00:00:00Z of {request.match_info['service']}\n".encode()
        await response.write(bytes((1, 0, 0, 0)) + len(line).to_bytes(4, "big") + line)
        if request.match_info["service"] == "hangs":
            await stopped.wait()
        return response

    app = web.Application()
    app.router.add_get("/services/{service}/logs", engine)
    runner = web.AppRunner(app, shutdown_timeout=0)
    await runner.setup()
    await web.UnixSite(runner, folder / "engine.sock").start()
    services = [SimpleNamespace(service_id=name, function="f", service=name) for name in ("hangs", "ends")]
    functions: Any = SimpleNamespace(services=lambda name: services)
    reader = Logs(functions)
    front = web.Application()
    front.router.add_get("/system/logs", reader.handle)
    try:
        async with TestClient(TestServer(front)) as client:
            text = await (await client.get("/system/logs?name=f")).text()
            return [json.loads(line) for line in text.splitlines()]
    finally:
        stopped.set()
        await reader.close()
        await runner.cleanup()


def test_a_log_that_the_engine_never_ends_is_what_it_is_so_far(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_SOCKET", str(tmp_path / "engine.sock"))
    monkeypatch.setattr(logs, "_SILENCE_SECONDS", 0.2)
    lines = asyncio.run(asyncio.wait_for(answered(tmp_path), 20))
    assert sorted(line["text"] for line in lines) == ["of ends", "of hangs"]
