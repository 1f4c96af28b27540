"""The local gateway's reader of logs, against an engine at a socket of its own."""

from __future__ import annotations

import asyncio
import gc
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from local.gateway import logs
from local.gateway.logs import Logs
from local.gateway.swarm import Task

LARGE = 40_000


def a_task(name: str, *, is_made: bool = True) -> Task:
    return Task("running", "", None, "", "running", name, is_made)


@asynccontextmanager
async def reading(
    folder: Path, tasks: list[Task], sent: list[str] | None = None
) -> AsyncIterator[TestClient[web.Request, web.Application]]:
    """A client of the logs of the function `f`, two lines for each task; one named `hangs` never ends.

    One named `brief` ends also when it is followed, one named `large` has `LARGE` lines more, of 1 KiB.
    `sent` gets the name of each line's task.
    """
    stopped = asyncio.Event()

    async def engine(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        name = request.match_info["task"]
        for second in (1, 2, *[2] * (LARGE if name == "large" else 0)):
            line = f"2026-01-01T00:00:0{second}Z {name} {second}{' ' * 1024 * (name == 'large')}\n".encode()
            await response.write(bytes((1, 0, 0, 0)) + len(line).to_bytes(4, "big") + line)
            if sent is not None:
                sent.append(name)
        if name == "hangs" or ("follow" in request.query and not name.startswith("brief")):
            await stopped.wait()
        return response

    app = web.Application()
    app.router.add_get("/tasks/{task}/logs", engine)
    runner = web.AppRunner(app, shutdown_timeout=0)
    await runner.setup()
    await web.UnixSite(runner, folder / "engine.sock").start()
    services = [SimpleNamespace(service_id="s1", function="f", service="f-1")]

    async def all_tasks() -> dict[str, list[Task]]:
        return {"s1": list(tasks)}

    functions: Any = SimpleNamespace(services=lambda name: services, tasks=all_tasks)
    reader = Logs(functions)
    front = web.Application()
    front.router.add_get("/system/logs", reader.handle)

    async def end(request: web.Request) -> web.Response:
        reader.end()
        return web.Response()

    front.router.add_post("/end", end)
    try:
        async with TestClient(TestServer(front)) as client:
            yield client
    finally:
        stopped.set()
        await reader.close()
        await runner.cleanup()


async def read(folder: Path, tasks: list[Task], query: str = "") -> list[str]:
    async with reading(folder, tasks) as client:
        text = await (await client.get(f"/system/logs?name=f{query}")).text()
        return [json.loads(line)["text"] for line in text.splitlines()]


@pytest.fixture(autouse=True)
def _engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_SOCKET", str(tmp_path / "engine.sock"))
    monkeypatch.setattr(logs, "_SILENCE_SECONDS", 0.2)
    monkeypatch.setattr(logs, "_LOOK_SECONDS", 0.05)


def ended(work: Any) -> Any:
    return asyncio.run(asyncio.wait_for(work, 20))


def test_every_tasks_log_is_read_by_itself_and_one_that_never_ends_keeps_none_away(tmp_path: Path) -> None:
    lines = ended(read(tmp_path, [a_task("hangs"), a_task("ends")]))
    assert lines == ["hangs 1", "ends 1", "hangs 2", "ends 2"]


def test_a_task_without_a_container_has_no_log_yet(tmp_path: Path) -> None:
    assert ended(read(tmp_path, [a_task("waits", is_made=False), a_task("ends")])) == ["ends 1", "ends 2"]


def test_a_tail_is_of_all_tasks_together(tmp_path: Path) -> None:
    assert ended(read(tmp_path, [a_task("one"), a_task("two")], "&tail=3")) == ["two 1", "one 2", "two 2"]


def test_a_log_that_is_large_is_passed_on_as_it_comes(tmp_path: Path) -> None:
    """All of it may not fit in memory."""
    sent: list[str] = []

    async def first() -> tuple[str, int]:
        tasks = [a_task("large"), a_task("ends")]
        async with reading(tmp_path, tasks, sent) as client, client.get("/system/logs?name=f") as answer:
            line = await answer.content.readline()
            await asyncio.sleep(0.1)
            return str(json.loads(line)["text"]).strip(), sent.count("large")

    text, count = ended(first())
    assert text == "large 1"
    assert count < LARGE / 2


def test_nothing_is_kept_of_tasks_that_are_gone(tmp_path: Path) -> None:
    """A function that dies at its start has another task each second, and somebody may follow it for days."""

    async def follow() -> int:
        tasks = [a_task("brief-0")]
        async with reading(tmp_path, tasks) as client, client.get("/system/logs?name=f&follow=1") as answer:
            for number in range(20):
                for _ in range(2):
                    await answer.content.readline()
                tasks[:] = [a_task(f"brief-{number + 1}")]
            readers = [each for each in gc.get_objects() if isinstance(each, asyncio.Task)]
            return sum("_followed" in repr(each) for each in readers)

    assert ended(follow()) < 10


def test_a_task_that_starts_later_joins_what_is_followed(tmp_path: Path) -> None:
    async def follow() -> list[str]:
        tasks, found = [a_task("old")], list[str]()
        async with reading(tmp_path, tasks) as client, client.get("/system/logs?name=f&follow=1") as answer:
            async for line in answer.content:
                found.append(json.loads(line)["text"])
                if len(found) == 2:
                    tasks.append(a_task("new"))
                if len(found) == 4:
                    return found
        return found

    assert ended(follow()) == ["old 1", "old 2", "new 1", "new 2"]


def test_who_follows_a_log_keeps_no_gateway_from_stopping(tmp_path: Path) -> None:
    async def to_its_end() -> None:
        async with reading(tmp_path, [a_task("old")]) as client:
            answer = await client.get("/system/logs?name=f&follow=true")
            assert await answer.content.readline()
            await client.post("/end")
            while await answer.content.readline():
                pass

    ended(to_its_end())
