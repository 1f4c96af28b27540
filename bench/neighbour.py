"""What stands for the neighbours of a function that is measured alone, in a process of its own.

A gateway that queues, answers after a while and deletes; a sink for uploads; and git's own server over HTTP,
whose bytes are counted. It is part of what is measured, of ours and of the floor alike.

`python -m bench.neighbour PORT FOLDER-OF-REPOSITORIES`
"""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

from aiohttp import web

_PIECE = 256 * 1024


class Neighbour:
    def __init__(self, repositories: str) -> None:
        self._repositories = repositories
        self._functions: dict[str, dict[str, Any]] = {}
        self._pause = 0.0
        self._bytes = 0

    def app(self) -> web.Application:
        app = web.Application(client_max_size=1024**3)
        app.add_routes(
            [
                web.post("/async-function/{name}", self.queue),
                web.post("/function/{name}", self.sink),
                web.get("/system/functions", self.list),
                web.get("/system/function/{name}", self.get),
                web.delete("/system/functions", self.delete),
                web.put("/bench/functions", self.fill),
                web.get("/bench/bytes", self.counted),
                web.route("*", "/git/{path:.*}", self.git),
            ]
        )
        return app

    async def queue(self, request: web.Request) -> web.Response:
        await request.read()
        return web.Response(status=202)

    async def sink(self, request: web.Request) -> web.Response:
        async for _ in request.content.iter_chunked(_PIECE):
            pass
        return web.json_response({"outcome": "ok"})

    async def list(self, request: web.Request) -> web.Response:
        await asyncio.sleep(self._pause)
        return web.json_response(list(self._functions.values()))

    async def get(self, request: web.Request) -> web.Response:
        await asyncio.sleep(self._pause)
        found = self._functions.get(request.match_info["name"])
        return web.json_response(found) if found else web.Response(status=404)

    async def delete(self, request: web.Request) -> web.Response:
        name, over = (await request.json())["functionName"], request.headers.get("If-Match")
        await asyncio.sleep(self._pause)
        there = self._functions.get(name)
        if there and over and over != f'"{there["etag"]}"':
            return web.Response(status=412)
        return web.Response(status=200 if self._functions.pop(name, None) else 404)

    async def fill(self, request: web.Request) -> web.Response:
        told = await request.json()
        self._pause = told["pause"]
        self._functions = {each["name"]: each for each in told["functions"]}
        return web.Response()

    async def counted(self, request: web.Request) -> web.Response:
        """The bytes of all bodies of git's so far, both ways."""
        return web.json_response(self._bytes)

    async def git(self, request: web.Request) -> web.StreamResponse:
        """https://git-scm.com/docs/git-http-backend"""
        process = await asyncio.create_subprocess_exec(
            *("git", "http-backend"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={
                "PATH": os.environ["PATH"],
                "GIT_PROJECT_ROOT": self._repositories,
                "GIT_HTTP_EXPORT_ALL": "1",
                "PATH_INFO": "/" + request.match_info["path"],
                "QUERY_STRING": request.rel_url.raw_query_string,
                "REQUEST_METHOD": request.method,
                "CONTENT_TYPE": request.headers.get("Content-Type", ""),
                "HTTP_CONTENT_ENCODING": request.headers.get("Content-Encoding", ""),
                "GIT_PROTOCOL": request.headers.get("Git-Protocol", ""),
            },
        )
        assert process.stdin
        assert process.stdout
        body = await request.read()
        process.stdin.write(body)
        process.stdin.close()
        head = (await process.stdout.readuntil(b"\r\n\r\n")).decode().strip()
        headers = dict(line.split(": ", 1) for line in head.split("\r\n"))
        status = int(headers.pop("Status", "200").split()[0])
        response = web.StreamResponse(status=status, headers=headers)
        await response.prepare(request)
        self._bytes += len(body)
        while piece := await process.stdout.read(_PIECE):
            self._bytes += len(piece)
            await response.write(piece)
        await process.wait()
        await response.write_eof()
        return response


if __name__ == "__main__":
    app = Neighbour(sys.argv[2]).app()
    # auto_decompress: git compresses its questions, and git reads them.
    web.run_app(
        app, host="127.0.0.1", port=int(sys.argv[1]), access_log=None, print=None, auto_decompress=False
    )
