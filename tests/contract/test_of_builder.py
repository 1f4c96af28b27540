"""of-builder's HTTP API with a stand-in for buildx; the real one is used in tests/e2e."""

from __future__ import annotations

import asyncio
import io
import json
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from yarl import URL

from of_builder.server import Service
from of_builder.settings import Settings
from sdk import signature
from sdk.secrets import Keys
from sdk.settings import Seconds
from tests.conftest import DATA
from tests.unit.test_tarball import DOCKERFILE, made

KEYS = Keys("builder-secret", (b"builder",))
IMAGE = "registry:5000/github/1/2/f"
TAR = made(DOCKERFILE)
Client = TestClient[web.Request, web.Application]

BUILDX = """\
#!/usr/bin/env python3
import json, os, signal, sys, time
folder = {folder!r}
open(f"{{folder}}/argv-{{os.getpid()}}", "w").write(json.dumps(sys.argv[1:]))
behaviour = open(f"{{folder}}/behaviour").read()
if sys.argv[1] == "prune":
    sys.exit()
vertex = {{"digest": "a", "name": "[1/1] FROM scratch"}}
print(json.dumps({{"vertexes": [vertex]}}), file=sys.stderr, flush=True)
if behaviour == "hang":
    signal.signal(signal.SIGTERM, lambda *_: (open(f"{{folder}}/terminated", "w").close(), sys.exit(1)))
    time.sleep(60)
if behaviour.startswith("ERROR"):
    print(behaviour, file=sys.stderr)
    sys.exit(1)
if behaviour == "chatter":
    for number in range(3000):
        print("word " * 20, file=sys.stderr)
metadata = next(word for word in sys.argv if word.startswith("--metadata-file="))
open(metadata.partition("=")[2], "w").write(json.dumps({{"containerimage.digest": "sha256:" + "d" * 64}}))
"""


class Buildx:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        program = folder / "docker-buildx"
        program.write_text(BUILDX.format(folder=str(folder)))
        program.chmod(0o755)
        self.behave("succeed")

    def behave(self, how: str) -> None:
        (self.folder / "behaviour").write_text(how)

    @property
    def calls(self) -> list[list[str]]:
        return [json.loads(path.read_text()) for path in self.folder.glob("argv-*")]


@pytest.fixture
def buildx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Buildx:
    stand_in = Buildx(tmp_path / "buildx")
    monkeypatch.setenv("PATH", f"{stand_in.folder}:{os.environ['PATH']}")
    return stand_in


@pytest.fixture
def settings(tmp_path: Path, secret_folder: Path) -> Settings:
    (tmp_path / "work").mkdir()
    return Settings(
        secret_mount_path=str(secret_folder), work_folder=str(tmp_path / "work"), request_limit_mb=1
    )


@asynccontextmanager
async def serving(settings: Settings) -> AsyncIterator[Client]:
    app = Service(settings).app()
    async with TestClient(TestServer(app, handler_cancellation=True)) as client:
        yield client


def run(settings: Settings, test: Callable[[Client], Awaitable[None]]) -> None:
    async def whole() -> None:
        async with serving(settings) as client:
            await test(client)

    asyncio.run(whole())
    assert not list(Path(settings.work_folder).iterdir()), "the work folder is removed"


def signed(body: bytes, **headers: str) -> dict[str, Any]:
    return {"data": io.BytesIO(body), "headers": {"X-Build-Signature": signature.sign(body, KEYS), **headers}}


def lines_of(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


NDJSON = {"Accept": "application/x-ndjson"}


def test_a_build_is_streamed_and_ends_in_a_terminal_line(settings: Settings, buildx: Buildx) -> None:
    async def test(client: Client) -> None:
        answer = await client.post("/build", **signed(TAR, **NDJSON))
        assert (answer.status, answer.content_type) == (200, "application/x-ndjson")
        *log, last = lines_of(await answer.text())
        assert log[0] == {"log": ["#1 [1/1] FROM scratch"], "image": f"{IMAGE}:sha", "status": "in_progress"}
        assert (last["status"], last["image"]) == ("success", f"{IMAGE}:sha")
        assert last["digest"] == "sha256:" + "d" * 64
        assert len(last["context"]) == 64

    run(settings, test)
    [argv] = [call for call in buildx.calls if call[0] == "build"]
    assert argv[-2] == "--"
    assert f"--tag={IMAGE}:sha" in argv
    assert "--provenance=false" in argv
    build_args = [word for word in argv if word.startswith("--build-arg=")]
    assert build_args == ["--build-arg=A=1", "--build-arg=BUILDKIT_CACHE_MOUNT_NS=github/1"]


def test_plain_curl_gets_one_json_answer_with_the_log(settings: Settings, buildx: Buildx) -> None:
    async def test(client: Client) -> None:
        answer = await client.post("/build", **signed(TAR))
        body = await answer.json()
        assert (answer.status, body["status"], body["log"]) == (200, "success", ["#1 [1/1] FROM scratch"])

    run(settings, test)


@pytest.mark.parametrize(
    ("said", "code", "status"),
    [
        ('ERROR: process "/bin/sh -c make" did not complete successfully: exit code: 2', "failed", 422),
        ("ERROR: failed to push r/x: connect: connection refused", "unavailable", 503),
    ],
)
def test_a_failure_is_the_authors_or_ours_and_never_200(
    said: str, code: str, status: int, settings: Settings, buildx: Buildx
) -> None:
    buildx.behave(said)

    async def test(client: Client) -> None:
        *_, last = lines_of(await (await client.post("/build", **signed(TAR, **NDJSON))).text())
        assert (last["status"], last["code"]) == ("failed", code)
        assert last["error"] in said
        whole = await client.post("/build", **signed(TAR))
        assert (whole.status, (await whole.json())["error"]) == (status, last["error"])

    run(settings, test)


def test_no_line_is_longer_than_clients_read(settings: Settings, buildx: Buildx) -> None:
    buildx.behave("chatter")

    async def test(client: Client) -> None:
        text = await (await client.post("/build", **signed(TAR, **NDJSON))).text()
        assert max(len(line) for line in text.splitlines()) < 60 * 1024
        assert sum(len(line.get("log", ())) for line in lines_of(text)) == 3001

    run(settings, test)


@pytest.mark.parametrize(
    "header", [{}, {"X-Build-Signature": "sha256=0"}, {"X-Cloud-Signature": signature.sign(TAR, KEYS)}]
)
def test_an_unsigned_or_wrongly_signed_build_is_401(
    header: dict[str, str], settings: Settings, buildx: Buildx
) -> None:
    async def test(client: Client) -> None:
        answer = await client.post("/build", data=TAR, headers=header)
        assert (answer.status, (await answer.json())["error"]["code"]) == (401, "unauthorized")

    run(settings, test)
    assert not buildx.calls


@pytest.mark.parametrize(
    ("body", "status"), [(b"", 400), (b"no tar", 400), (made(), 400), (bytes(2 * 1024**2), 413)]
)
def test_a_signed_body_that_is_no_request_is_refused(
    body: bytes, status: int, settings: Settings, buildx: Buildx
) -> None:
    async def test(client: Client) -> None:
        answer = await client.post("/build", **signed(body))
        assert answer.status == status
        assert (await answer.json())["error"]["message"]

    run(settings, test)
    assert not buildx.calls


def test_a_client_that_goes_away_cancels_its_build(settings: Settings, buildx: Buildx) -> None:
    """Flaw 20: a client that goes away didn't cancel the build."""
    buildx.behave("hang")

    async def test(client: Client) -> None:
        answer = await client.post("/build", **signed(TAR, **NDJSON))
        await answer.content.readline()
        answer.close()
        deadline = time.monotonic() + 10  # the build itself would take a minute
        while not (buildx.folder / "terminated").exists() or list(Path(settings.work_folder).iterdir()):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)

    run(settings, test)


def test_a_build_that_takes_too_long_ends(settings: Settings, buildx: Buildx) -> None:
    buildx.behave("hang")

    async def test(client: Client) -> None:
        *_, last = lines_of(await (await client.post("/build", **signed(TAR, **NDJSON))).text())
        assert (last["status"], last["error"]) == ("failed", "the build takes longer than 1 s")

    run(replace(settings, build_timeout=Seconds(1)), test)
    assert (buildx.folder / "terminated").exists()


def test_a_full_queue_is_503(settings: Settings, buildx: Buildx) -> None:
    """Flaw 20: there was no limit on builds at once."""
    buildx.behave("hang")

    async def test(client: Client) -> None:
        first = await client.post("/build", **signed(TAR, **NDJSON))
        waiting = asyncio.create_task(client.post("/build", **signed(TAR, **NDJSON)))
        while sum(1 for _ in Path(settings.work_folder).iterdir()) < 2:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        refused = await client.post("/build", **signed(TAR))
        assert (refused.status, refused.headers["Retry-After"]) == (503, "5")
        waiting.cancel()
        first.close()
        while list(Path(settings.work_folder).iterdir()):
            await asyncio.sleep(0.01)

    run(replace(settings, parallel_builds=1, queued_builds=1), test)


def test_an_image_is_looked_up_by_a_signed_query(
    settings: Settings, buildx: Buildx, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, str]] = []

    async def registry(request: web.Request) -> web.Response:
        asked.append((request.path, request.headers["Accept"]))
        found = request.path.endswith("/ctx-abc")
        headers = {"Docker-Content-Digest": "sha256:1"} if found else {}
        return web.Response(status=200 if found else 404, headers=headers)

    async def whole() -> None:
        app = web.Application()
        app.router.add_head("/v2/{path:.*}", registry)
        async with TestServer(app) as fake:
            reachable = replace(settings, registry_api_url=str(fake.make_url("/")))
            async with serving(reachable) as client:
                now = int(time.time())
                for tag, status in (("context=abc", 200), ("tag=v1", 404)):
                    target = f"/image?image=registry%3A5000%2Fa%2Fb&{tag}&at={now}"
                    headers = {"X-Build-Signature": signature.sign(target.encode(), KEYS)}
                    url = URL(str(client.make_url("/"))[:-1] + target, encoded=True)
                    answer = await client.session.get(url, headers=headers)
                    assert answer.status == status, await answer.text()
                for target in (f"/image?image=a/b&tag=c&at={now - 1000}", "/image?image=a/b&tag=c"):
                    headers = {"X-Build-Signature": signature.sign(target.encode(), KEYS)}
                    assert (await client.get(target, headers=headers)).status == 401
                assert (await client.get(f"/image?image=a/b&tag=c&at={now}")).status == 401

    asyncio.run(whole())
    assert [path for path, _ in asked] == ["/v2/a/b/manifests/ctx-abc", "/v2/a/b/manifests/v1"]
    assert "application/vnd.oci.image.index.v1+json" in asked[0][1]


def test_get_says_what_it_is_and_that_it_is_alive(settings: Settings, buildx: Buildx) -> None:
    async def test(client: Client) -> None:
        about = await (await client.get("/")).json()
        assert about["name"] == "of-builder"
        assert (await client.get("/healthz")).status == 200
        assert (await client.get("/nothing")).status == 404
        wrong = await client.get("/build")
        assert (wrong.status, "POST /build" in (await wrong.json())["error"]["message"]) == (405, True)

    run(settings, test)


def test_faas_clis_recorded_publish_is_accepted(settings: Settings, buildx: Buildx) -> None:
    body = (DATA / "faas-cli" / "request-publish.tar").read_bytes()

    async def test(client: Client) -> None:
        *_, last = lines_of(await (await client.post("/build", **signed(body, **NDJSON))).text())
        assert last["status"] == "success"

    run(settings, test)
