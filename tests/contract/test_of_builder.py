"""of-builder's HTTP API with a stand-in for buildx; the real one is used in tests/e2e."""

from __future__ import annotations

import asyncio
import errno
import io
import json
import os
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import BaseTestServer, TestClient, TestServer
from yarl import URL

from of_builder import server, tarball
from of_builder.build import build, create_builder, prune
from of_builder.server import Service
from of_builder.settings import _PLUGINS, Settings
from of_builder.tarball import Config, Job
from sdk import signature
from sdk.builder import Builder, Built
from sdk.errors import Busy, Failed, Misconfigured, Unavailable
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
kept = os.environ.get("BUILDX_CONFIG") or os.environ["HOME"] + "/.docker/buildx"
instance = kept + "/of-buildkit"
if sys.argv[1] == "create":
    os.makedirs(kept, exist_ok=True)
    open(instance, "x").close()
if "--builder=of-buildkit" in sys.argv and not os.path.exists(instance):
    sys.exit("ERROR: no builder of-buildkit found")
if sys.argv[1] != "build":
    sys.exit()
signal.signal(signal.SIGTERM, lambda *_: (open(f"{{folder}}/terminated", "w").close(), sys.exit(1)))
vertex = {{"digest": "a", "name": "[1/1] FROM scratch"}}
print(json.dumps({{"vertexes": [vertex]}}), file=sys.stderr, flush=True)
if behaviour == "hang":
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
    assert not folders(settings), "the work folder is removed"


def folders(settings: Settings) -> list[Path]:
    return list(Path(settings.work_folder).glob("build-*"))


async def until(condition: Callable[[], object], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


async def built(at: BaseTestServer | Client, seconds: float) -> Built:
    """What our own client makes of the build."""
    builder = Builder(str(at.make_url("/")), KEYS)
    return await asyncio.to_thread(builder.build, TAR, signature.sign(TAR, KEYS), seconds)


@pytest.fixture
def quick_beat(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "BEAT_SECONDS", 0.05)


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


@pytest.mark.parametrize(
    ("how", "lines"),
    [("chatter", 3001), (f'ERROR: process "{chr(1) * 100_000}" did not complete successfully: code 7', 2)],
    ids=["many lines", "a long one of control characters"],
)
def test_no_line_is_longer_than_clients_read(
    how: str, lines: int, settings: Settings, buildx: Buildx
) -> None:
    buildx.behave(how)

    async def test(client: Client) -> None:
        body = await (await client.post("/build", **signed(TAR, **NDJSON))).read()
        assert max(len(line) for line in body.splitlines()) < 60 * 1024
        *_, last = rows = lines_of(body.decode())
        assert sum(len(row.get("log", ())) for row in rows) == lines
        assert last["status"] == "success" or last["error"].endswith("did not complete successfully: code 7")

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


def test_no_unsigned_body_is_read(settings: Settings, buildx: Buildx) -> None:
    async def test(client: Client) -> None:
        answer = await client.post("/build", data=endless(), headers={"X-Build-Signature": "sha256=0"})
        assert answer.status == 401

    run(settings, test)


async def endless() -> AsyncIterator[bytes]:
    """A body that begins, and never ends."""
    yield b"x"
    await asyncio.sleep(60)


def test_requests_that_arrive_take_places_but_not_for_ever(
    settings: Settings, buildx: Buildx, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "RECEIVE_SECONDS", 1)
    header = {"X-Build-Signature": signature.sign(TAR, KEYS)}

    async def test(client: Client) -> None:
        arriving = [asyncio.create_task(client.post("/build", data=endless(), headers=header)) for _ in "ab"]
        await until(lambda: len(folders(settings)) == 2)
        assert (await client.post("/build", **signed(TAR))).status == 503
        assert [(await task).status for task in arriving] == [503, 503]
        assert (await client.post("/build", **signed(TAR))).status == 200

    run(replace(settings, parallel_builds=1, queued_builds=1), test)


def test_a_full_disk_is_no_fault_of_the_author(
    settings: Settings, buildx: Buildx, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(tarball, "_unpack_entry", full)

    async def test(client: Client) -> None:
        answer = await client.post("/build", **signed(TAR, **NDJSON))
        assert (answer.status, (await answer.json())["error"]["code"]) == (503, "unavailable")

    run(settings, test)


def test_a_client_that_goes_away_cancels_its_build(settings: Settings, buildx: Buildx) -> None:
    """Flaw 20: a client that goes away didn't cancel the build."""
    buildx.behave("hang")

    async def test(client: Client) -> None:
        answer = await client.post("/build", **signed(TAR, **NDJSON))
        await answer.content.readline()
        answer.close()
        # The build itself would take a minute.
        await until(lambda: (buildx.folder / "terminated").exists() and not folders(settings))

    run(settings, test)


def test_a_client_that_goes_away_while_its_tar_is_unpacked_leaves_nothing(
    settings: Settings, buildx: Buildx, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[Path] = []

    def slow(tar: Path, folder: Path, **limits: int) -> None:
        for number in range(100):
            (folder / "context" / str(number)).mkdir(parents=True)
            time.sleep(0.005)
        ended.append(folder)

    monkeypatch.setattr(tarball, "unpack", slow)

    async def test(client: Client) -> None:
        asking = asyncio.create_task(client.post("/build", **signed(TAR)))
        await until(lambda: any((folder / "context").exists() for folder in folders(settings)))
        asking.cancel()
        await until(lambda: ended)
        await until(lambda: not folders(settings))

    run(settings, test)


def test_a_service_that_stops_cancels_its_builds_and_says_so(settings: Settings, buildx: Buildx) -> None:
    buildx.behave("hang")

    async def test(client: Client) -> None:
        answer = await client.post("/build", **signed(TAR, **NDJSON))
        await answer.content.readline()
        began = time.monotonic()
        stopping = asyncio.create_task(client.server.close())
        last = json.loads(await answer.content.readline())
        assert (last["status"], last["code"]) == ("failed", "unavailable")
        await stopping
        assert time.monotonic() - began < 5

    run(settings, test)
    assert (buildx.folder / "terminated").exists()


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
        waiting = await client.post("/build", **signed(TAR, **NDJSON))
        refused = await client.post("/build", **signed(TAR, **NDJSON))
        assert (refused.status, refused.headers["Retry-After"]) == (503, "5")
        waiting.close()
        first.close()
        await until(lambda: not folders(settings))

    run(replace(settings, parallel_builds=1, queued_builds=1), test)


def test_builds_wait_in_turn_and_are_told_how_many_are_ahead(
    settings: Settings, buildx: Buildx, quick_beat: None
) -> None:
    buildx.behave("hang")

    async def test(client: Client) -> None:
        first = await client.post("/build", **signed(TAR, **NDJSON))
        await first.content.readline()
        second = await client.post("/build", **signed(TAR, **NDJSON))
        third = await client.post("/build", **signed(TAR, **NDJSON))
        said = [json.loads(await third.content.readline()) for _ in range(2)]
        assert (said[0]["log"], said[0]["code"]) == (["waiting: 2 builds are ahead"], "busy")
        assert said[1] == {"status": "in_progress"}
        buildx.behave("succeed")
        first.close()
        for answer in (second, third):
            assert lines_of(await answer.text())[-1]["status"] == "success"

    run(replace(settings, parallel_builds=1), test)


def test_a_build_is_sent_once_however_long_of_builder_is_silent() -> None:
    """It was sent four times, each time to the end of the queue: 210 s became 840."""
    sent: list[bytes] = []

    async def silent(request: web.Request) -> web.Response:
        sent.append(await request.read())
        await asyncio.sleep(60)
        return web.Response()

    async def whole() -> None:
        app = web.Application()
        app.router.add_post("/build", silent)
        async with TestServer(app, handler_cancellation=True) as fake:
            with pytest.raises(Unavailable, match="timed out"):
                await built(fake, 0.5)

    began = time.monotonic()
    asyncio.run(whole())
    assert (sent, time.monotonic() - began < 3) == ([TAR], True)


def test_our_client_keeps_its_limit_whether_the_build_is_silent_or_waits(
    settings: Settings, buildx: Buildx, quick_beat: None
) -> None:
    buildx.behave("hang")

    async def test(client: Client) -> None:
        building = asyncio.create_task(built(client, 2))
        await until(lambda: buildx.calls)
        with pytest.raises(Busy, match="waited 1 s for its turn"):
            await built(client, 1)
        with pytest.raises(Failed, match="longer than 2 s"):
            await building
        await until(lambda: (buildx.folder / "terminated").exists() and not folders(settings))

    run(replace(settings, parallel_builds=1), test)


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
                olds = (f"at={now - 1000}", "at=", "at=%C2%B2", f"at={'9' * 5000}", "")
                for target in (f"/image?image=a/b&tag=c&{old}" for old in olds):
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


@pytest.mark.parametrize("url", ["tcp://of-buildkit:1234", "unix:///run/buildkit/buildkitd.sock"])
def test_a_standalone_buildkitd_is_what_every_call_drives(
    url: str, settings: Settings, buildx: Buildx
) -> None:
    remote = replace(settings, buildkit_url=url, insecure=True)

    async def test(client: Client) -> None:
        assert (await client.post("/build", **signed(TAR))).status == 200
        assert await prune(remote)

    for _ in ("first start", "another"):
        run(remote, test)
    calls = {call[0]: call for call in buildx.calls}
    assert calls["create"] == ["create", "--driver=remote", "--name=of-buildkit", "--", url]
    assert "--output=type=registry,registry.insecure=true" in calls["build"]
    assert all("--builder=of-buildkit" in calls[name] for name in ("build", "prune"))


def test_the_engines_own_buildkit_needs_no_builder(settings: Settings, buildx: Buildx) -> None:
    async def test(client: Client) -> None:
        assert (await client.post("/build", **signed(TAR))).status == 200
        assert await prune(settings)

    run(settings, test)
    assert sorted(call[0] for call in buildx.calls) == ["build", "prune"]
    assert not any(word.startswith("--builder") for call in buildx.calls for word in call)


@pytest.mark.skipif(not any(map(shutil.which, _PLUGINS)), reason="buildx is not installed")
def test_the_real_buildx_finds_its_builder_after_every_start(
    tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no-engine")
    remote = replace(settings, buildkit_url=f"unix://{tmp_path}/no-buildkitd")
    (tmp_path / "context").mkdir()
    (tmp_path / "context" / "Dockerfile").write_text("FROM scratch\n")

    async def test() -> None:
        for _ in ("first start", "another"):
            await create_builder(remote)
        async with aclosing(build(Job(tmp_path / "context", Config("a/b"), "c"), tmp_path, remote)) as lines:
            assert (await anext(lines)).log == ["#1 [internal] waiting for connection"]
        with pytest.raises(Misconfigured, match="buildkit_url"):
            await create_builder(replace(remote, buildkit_url="http://of-buildkit"))

    asyncio.run(test())
