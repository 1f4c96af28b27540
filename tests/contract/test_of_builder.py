"""of-builder's HTTP API with a stand-in for buildx; the real one is used in tests/e2e."""

from __future__ import annotations

import asyncio
import base64
import errno
import hashlib
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import requests
from aiohttp import web
from aiohttp.test_utils import BaseTestServer, TestClient, TestServer
from yarl import URL

from buildshiprun.neighbours import neighbours
from buildshiprun.sdk.settings import Settings as FunctionSettings
from local.engine import LABEL
from of_builder import server, service, tarball
from of_builder.bases import MADE_HERE
from of_builder.build import build
from of_builder.buildkit import BuildKit
from of_builder.server import Server
from of_builder.service import Service, workplace
from of_builder.settings import _PLUGINS, Settings
from of_builder.tarball import Config, Job
from sdk import signature
from sdk.builder import Builder, Built
from sdk.errors import Busy, Failed, Misconfigured, Superseded, Unavailable
from sdk.registry import MANIFESTS, Manifest, Registry
from sdk.secrets import Keys
from sdk.settings import Seconds
from tests.conftest import DATA, ROOT
from tests.unit.test_sealed import KEY, seal
from tests.unit.test_tarball import DOCKERFILE, made

from . import faas_cli
from .fake_registry import FakeRegistry
from .fakes import running

KEYS = Keys("builder-secret", (b"builder",))
IMAGE = "registry:5000/github/1/2/f"
OWNER = hashlib.sha256(b"github/1").hexdigest()[:16]
TAR = made(DOCKERFILE)
# Of one owner, and each another context: none joins another.
TARS = [made(DOCKERFILE, (f"context/{number}", b"x")) for number in range(3)]
Client = TestClient[web.Request, web.Application]

BUILDX = """\
#!/usr/bin/env python3
import json, os, signal, sys, time
folder = {folder!r}
with open(f"{{folder}}/new-{{os.getpid()}}", "w") as told:
    told.write(json.dumps(sys.argv[1:]))
os.rename(told.name, f"{{folder}}/argv-{{os.getpid()}}")  # so that a reader finds all of it
behaviour = open(f"{{folder}}/behaviour").read()
kept = os.environ["BUILDX_CONFIG"]
instance = kept + "/of-buildkit"
if sys.argv[1] == "create":
    if behaviour == "refuse":
        sys.exit("ERROR: refused")
    os.makedirs(kept, exist_ok=True)
    open(instance, "x").close()
if "--builder=of-buildkit" in sys.argv and not os.path.exists(instance):
    sys.exit("ERROR: no builder of-buildkit found")
if sys.argv[1] == "inspect":
    print("Status: running" if behaviour != "away" else "Error: nobody is there")
if sys.argv[1] == "imagetools":
    print(json.dumps(json.load(open(f"{{folder}}/images"))[sys.argv[-1]]))
if sys.argv[1] != "build":
    sys.exit()
if "ALLOW" not in open(os.environ["EXPERIMENTAL_BUILDKIT_SOURCE_POLICY"]).read():
    sys.exit("ERROR: source denied by policy" if behaviour != "old" else 0)
open(f"{{folder}}/environment", "w").write(json.dumps(dict(os.environ)))
signal.signal(signal.SIGTERM, lambda *_: (open(f"{{folder}}/terminated", "w").close(), sys.exit(1)))
vertex = {{"digest": "a", "name": "[1/1] FROM scratch"}}
print(json.dumps({{"vertexes": [vertex]}}), file=sys.stderr, flush=True)
if behaviour == "tell":
    print("secret: " + os.environ.get("OF_BUILDER_SECRET_0", ""), file=sys.stderr, flush=True)
while behaviour == "wait":
    time.sleep(0.01)
    behaviour = open(f"{{folder}}/behaviour").read()
if behaviour == "hang":
    time.sleep(60)
if behaviour.startswith("ERROR"):
    print(behaviour, file=sys.stderr)
    sys.exit(1)
if behaviour == "chatter":
    for number in range(3000):
        print("word " * 20, file=sys.stderr)
if behaviour == "flood":
    for number in range(40000):
        print("word " * 80, file=sys.stderr)
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

    def tells(self, digest: str) -> None:
        """The digest of what it builds."""
        program = self.folder / "docker-buildx"
        program.write_text(program.read_text().replace('"sha256:" + "d" * 64', repr(digest)))

    def behave(self, how: str) -> None:
        (self.folder / "behaviour").write_text(how)

    @property
    def calls(self) -> list[list[str]]:
        """All but those that find out what BuildKit is like."""
        calls = [json.loads(path.read_text()) for path in self.folder.glob("argv-*")]
        return [call for call in calls if call[0] != "inspect" and "--progress=plain" not in call]


@pytest.fixture
def buildx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Buildx:
    stand_in = Buildx(tmp_path / "buildx")
    monkeypatch.setenv("PATH", f"{stand_in.folder}:{os.environ['PATH']}")
    return stand_in


@pytest.fixture
def registry() -> Iterator[FakeRegistry]:
    fake = FakeRegistry()
    with running(fake):
        yield fake


@pytest.fixture
def settings(tmp_path: Path, secret_folder: Path, registry: FakeRegistry) -> Settings:
    (tmp_path / "work").mkdir()
    return Settings(
        secret_mount_path=str(secret_folder),
        work_folder=str(tmp_path / "work"),
        request_limit_mb=1,
        registry_api_url=registry.url,
    )


@asynccontextmanager
async def serving(settings: Settings) -> AsyncIterator[Client]:
    app = Server(Service(settings, Path(settings.work_folder))).app()
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


async def built(at: BaseTestServer | Client, seconds: float, tar: bytes = TAR) -> Built:
    """What our own client makes of the build."""
    builder = Builder(str(at.make_url("/")), KEYS)
    return await asyncio.to_thread(builder.build, tar, signature.sign(tar, KEYS), seconds)


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
    assert build_args == [
        "--build-arg=A=1",
        "--build-arg=SOURCE_DATE_EPOCH=315532800",
        f"--build-arg=BUILDKIT_CACHE_MOUNT_NS={OWNER}",
    ]
    assert "--ulimit=fsize=4294967296" in argv
    assert f"--add-host=owner-{OWNER}.invalid:127.0.0.1" in argv


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


def test_nothing_comes_after_the_last_line_however_long_its_log_takes(
    settings: Settings, buildx: Buildx, registry: FakeRegistry, quick_beat: None
) -> None:
    registry.overrides.append(lambda method, path: time.sleep(0.1))

    async def test(client: Client) -> None:
        rows = lines_of(await (await client.post("/build", **signed(TAR, **NDJSON))).text())
        assert [row["status"] for row in rows].index("success") == len(rows) - 1

    run(settings, test)


def test_a_client_that_reads_nothing_loses_its_place(
    settings: Settings, buildx: Buildx, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "SEND_SECONDS", 0.5)
    buildx.behave("flood")

    async def whole() -> None:
        there = Service(settings, Path(settings.work_folder))
        async with TestServer(Server(there).app(), handler_cancellation=True) as at:
            client = socket.socket()
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            with client:
                client.connect((at.host, at.port))
                headers = "Content-Length: %d\r\nX-Build-Signature: %s\r\nAccept: %s\r\nHost: x\r\n\r\n"
                values = (len(TAR), signature.sign(TAR, KEYS), NDJSON["Accept"])
                client.sendall(b"POST /build HTTP/1.1\r\n" + (headers % values).encode() + TAR)
                await until(lambda: there.requests)
                await until(lambda: not there.requests, seconds=30)
                await until(lambda: not there.builds.all)

    asyncio.run(whole())


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
    monkeypatch.setattr(service, "RECEIVE_SECONDS", 1)
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

    def slow(tar: Path, folder: Path, key: object, **limits: int) -> None:
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
        first = await client.post("/build", **signed(TARS[0], **NDJSON))
        waiting = await client.post("/build", **signed(TARS[1], **NDJSON))
        refused = await client.post("/build", **signed(TARS[2], **NDJSON))
        assert [answer.status for answer in (first, waiting, refused)] == [200, 200, 503]
        assert refused.headers["Retry-After"] == "5"
        # A push that waits for a place does not fail, however long (git-tar's patience).
        with pytest.raises(Busy):
            await built(client, 5, TARS[2])
        waiting.close()
        first.close()
        await until(lambda: not folders(settings))

    run(replace(settings, parallel_builds=1, queued_builds=1), test)


def test_builds_wait_in_turn_and_are_told_how_many_are_ahead(
    settings: Settings, buildx: Buildx, quick_beat: None
) -> None:
    buildx.behave("hang")

    async def test(client: Client) -> None:
        first = await client.post("/build", **signed(TARS[0], **NDJSON))
        await first.content.readline()
        second = await client.post("/build", **signed(TARS[1], **NDJSON))
        third = await client.post("/build", **signed(TARS[2], **NDJSON))
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
            await built(client, 1, TARS[1])
        with pytest.raises(Failed, match="longer than 2 s"):
            await building
        await until(lambda: (buildx.folder / "terminated").exists() and not folders(settings))

    run(replace(settings, parallel_builds=1), test)


def pushed(registry: FakeRegistry, path: str, tag: str) -> str:
    """An image there; its digest."""
    client = Registry(registry.url)
    config = {"mediaType": "x", "digest": client.put_blob(path, b"{}"), "size": 2}
    content = json.dumps({"schemaVersion": 2, "config": config, "layers": []}).encode()
    client.put_manifest(path, tag, Manifest(content, MANIFESTS[3], ""))
    return str(client.digest(path, tag))


def asked(target: str, keys: Keys = KEYS) -> dict[str, Any]:
    return {"headers": {"X-Build-Signature": signature.sign(target.encode(), keys)}}


def at_now() -> str:
    return f"at={int(time.time())}"


def test_an_image_is_looked_up_by_a_signed_query(
    settings: Settings, buildx: Buildx, registry: FakeRegistry
) -> None:
    digest = pushed(registry, "a/b", "ctx-abc")

    async def test(client: Client) -> None:
        for tag, status in (("context=abc", 200), ("tag=v1", 404)):
            target = f"/image?image=registry%3A5000%2Fa%2Fb&{tag}&{at_now()}"
            url = URL(str(client.make_url("/"))[:-1] + target, encoded=True)
            answer = await client.session.get(url, **asked(target))
            assert answer.status == status, await answer.text()
            if status == 200:
                assert (await answer.json())["digest"] == digest
        olds = (f"at={int(time.time()) - 1000}", "at=", "at=%C2%B2", f"at={'9' * 5000}", "")
        for target in (f"/image?image=a/b&tag=c&{old}" for old in olds):
            assert (await client.get(target, **asked(target))).status == 401
        assert (await client.get(f"/image?image=a/b&tag=c&{at_now()}")).status == 401

    run(settings, test)


def test_a_builds_log_is_kept_beside_its_image_also_when_it_failed(
    settings: Settings, buildx: Buildx, registry: FakeRegistry
) -> None:
    async def log(client: Client, tag: str) -> tuple[int, str]:
        target = f"/log?image={IMAGE}&{tag}&{at_now()}"
        answer = await client.get(target, **asked(target))
        return answer.status, await answer.text()

    async def test(client: Client) -> None:
        assert (await log(client, "tag=sha"))[0] == 404
        last = lines_of(await (await client.post("/build", **signed(TAR, **NDJSON))).text())[-1]
        whole = (200, "#1 [1/1] FROM scratch\n")
        assert await log(client, "tag=sha") == await log(client, f"context={last['context']}") == whole
        buildx.behave('ERROR: process "x" did not complete successfully: exit code: 2')
        await (await client.post("/build", **signed(TAR))).read()
        assert "exit code: 2" in (await log(client, "tag=sha"))[1]
        buildx.behave("hang")
        answer = await client.post("/build", **signed(TAR, **NDJSON))
        await answer.content.readline()
        assert await log(client, "tag=sha") == whole
        answer.close()
        target = f"/log?image={IMAGE}&tag=sha&at=1"
        assert (await client.get(target, **asked(target))).status == 401

    run(settings, test)


def test_a_reader_of_logs_may_do_nothing_else(
    settings: Settings, buildx: Buildx, registry: FakeRegistry
) -> None:
    readers = Keys("builder-readers", (b"readers",))
    (Path(settings.secret_mount_path) / "builder-readers").write_text("readers\n")

    async def test(client: Client) -> None:
        assert (await client.post("/build", **signed(TAR))).status == 200
        target = f"/log?image={IMAGE}&tag=sha&{at_now()}"
        assert (await client.get(target, **asked(target, readers))).status == 200
        target = target.replace("/log?", "/image?")
        assert (await client.get(target, **asked(target, readers))).status == 401
        headers = {"X-Build-Signature": signature.sign(TAR, readers)}
        assert (await client.post("/build", data=TAR, headers=headers)).status == 401

    run(settings, test)


def test_a_registry_that_keeps_no_log_fails_no_build(settings: Settings, buildx: Buildx) -> None:
    async def test(client: Client) -> None:
        assert (await client.post("/build", **signed(TAR))).status == 200

    run(replace(settings, registry_api_url="http://127.0.0.1:1"), test)


def test_a_repeated_build_joins_the_running_one_and_its_image_gets_both_tags(
    settings: Settings, buildx: Buildx, registry: FakeRegistry
) -> None:
    buildx.behave("wait")
    digest = pushed(registry, "github/1/2/f", "sha")
    buildx.tells(digest)
    other = made(DOCKERFILE, config=json.dumps({"image": f"{IMAGE}:other", "buildArgs": {"A": "1"}}).encode())

    async def test(client: Client) -> None:
        first = await client.post("/build", **signed(TAR, **NDJSON))
        await first.content.readline()
        second = await client.post("/build", **signed(other, **NDJSON))
        assert json.loads(await second.content.readline())["log"] == ["#1 [1/1] FROM scratch"]
        first.close()  # who joined still follows
        buildx.behave("succeed")
        last = lines_of(await second.text())[-1]
        assert (last["status"], last["image"], last["digest"]) == ("success", f"{IMAGE}:other", digest)
        assert "of_builder_joined_total 1.0" in await (await client.get("/metrics")).text()

    run(settings, test)
    assert Registry(registry.url).digest("github/1/2/f", "other") == digest
    assert {"log-sha", "log-other"} < set(Registry(registry.url).tags("github/1/2/f"))
    assert len([call for call in buildx.calls if call[0] == "build"]) == 1


async def overtaken(client: Client, image: str, tag: str, keys: Keys = KEYS) -> tuple[int, int]:
    """The status, and how many requests are let go."""
    target = f"/build?image={image}&tag={tag}&{at_now()}"
    answer = await client.delete(target, **asked(target, keys))
    return answer.status, (await answer.json()).get("ended", 0)


@pytest.mark.parametrize("image", [IMAGE, "registry:5000/github/1/2"], ids=["its path", "a path above"])
def test_a_build_that_nobody_needs_any_more_is_ended(
    image: str, settings: Settings, buildx: Buildx, registry: FakeRegistry
) -> None:
    buildx.behave("wait")

    async def test(client: Client) -> None:
        waiting = asyncio.create_task(built(client, 60))
        await until(lambda: [call for call in buildx.calls if call[0] == "build"])
        for other, tag in ((f"{IMAGE}x", "sha"), (f"{IMAGE}/x", "sha"), (image, "another")):
            assert await overtaken(client, other, tag) == (200, 0)
        assert await overtaken(client, image, "sha") == (200, 1)
        with pytest.raises(Superseded, match="a newer commit was pushed"):
            await waiting
        await until(lambda: (buildx.folder / "terminated").exists() and not folders(settings))
        assert await overtaken(client, image, "sha") == (200, 0), "again, and when there is none"
        metrics = await (await client.get("/metrics")).text()
        assert 'of_builder_builds_total{reason="",result="cancelled"} 1.0' in metrics

    run(settings, test)


def test_an_overtaken_build_goes_on_for_who_else_waits_for_it(
    settings: Settings, buildx: Buildx, registry: FakeRegistry
) -> None:
    buildx.behave("wait")
    buildx.tells(pushed(registry, "github/1/2/f", "sha"))
    other = made(DOCKERFILE, config=json.dumps({"image": f"{IMAGE}:other", "buildArgs": {"A": "1"}}).encode())

    async def test(client: Client) -> None:
        first = await client.post("/build", **signed(TAR, **NDJSON))
        await first.content.readline()
        second = await client.post("/build", **signed(other, **NDJSON))
        await second.content.readline()
        assert await overtaken(client, IMAGE, "sha") == (200, 1)
        last = lines_of(await first.text())[-1]
        assert (last["status"], last["code"], last["image"]) == ("failed", "superseded", f"{IMAGE}:sha")
        again = await client.post("/build", **signed(TAR, **NDJSON))  # the branch went back to it
        buildx.behave("succeed")
        for answer in (second, again):
            assert lines_of(await answer.text())[-1]["status"] == "success"

    run(settings, test)


def test_whoever_does_not_wait_for_a_stream_is_told_of_an_overtaken_build_too(
    settings: Settings, buildx: Buildx
) -> None:
    buildx.behave("wait")

    async def test(client: Client) -> None:
        waiting = asyncio.create_task(client.post("/build", **signed(TAR)))
        await until(lambda: [call for call in buildx.calls if call[0] == "build"])
        assert await overtaken(client, IMAGE, "sha") == (200, 1)
        assert (await waiting).status == 409

    run(settings, test)


def test_only_who_may_push_an_image_says_that_nobody_needs_it(clients: Settings, buildx: Buildx) -> None:
    async def test(client: Client) -> None:
        assert (await client.delete(f"/build?image={IMAGE}&tag=sha&{at_now()}")).status == 401
        assert (await overtaken(client, IMAGE, "sha", CLIENTS))[0] == 403
        assert (await overtaken(client, "registry:5000/ci/hello", "1", CLIENTS))[0] == 200
        target = f"/build?image={IMAGE}&tag=sha&at={int(time.time()) - 1000}"
        assert (await client.delete(target, **asked(target))).status == 401, "too old"

    run(clients, test)


def test_a_registry_that_does_not_take_the_second_tag_is_not_the_authors_fault(
    settings: Settings, buildx: Buildx, registry: FakeRegistry
) -> None:
    buildx.behave("wait")
    buildx.tells(pushed(registry, "github/1/2/f", "sha"))
    other = made(DOCKERFILE, config=json.dumps({"image": f"{IMAGE}:other", "buildArgs": {"A": "1"}}).encode())
    registry.overrides.append(lambda method, path: (400, b"") if path.endswith("/other") else None)

    async def test(client: Client) -> None:
        first = await client.post("/build", **signed(TAR, **NDJSON))
        await first.content.readline()
        second = await client.post("/build", **signed(other, **NDJSON))
        await second.content.readline()
        buildx.behave("succeed")
        last = lines_of(await second.text())[-1]
        assert (last["status"], last["code"]) == ("failed", "unavailable")
        assert lines_of(await first.text())[-1]["status"] == "success"

    run(settings, test)


def test_an_owners_builds_take_no_more_than_half_of_the_places(settings: Settings, buildx: Buildx) -> None:
    buildx.behave("hang")
    others = made(DOCKERFILE, config=b'{"image": "registry:5000/github/7/2/f:sha"}')

    async def test(client: Client) -> None:
        answers = [await client.post("/build", **signed(tar, **NDJSON)) for tar in TARS[:2]]
        refused = await client.post("/build", **signed(TARS[2], **NDJSON))
        assert (refused.status, "of github/1" in await refused.text()) == (503, True)
        answers.append(await client.post("/build", **signed(others, **NDJSON)))
        assert answers[-1].status == 200
        for answer in answers:
            answer.close()
        await until(lambda: not folders(settings))

    run(replace(settings, parallel_builds=1, queued_builds=3), test)


CLIENTS = Keys("builder-clients", (b"clients",))


@pytest.fixture
def clients(settings: Settings) -> Settings:
    (Path(settings.secret_mount_path) / "builder-clients").write_text("clients\n")
    return replace(settings, client_prefix="registry:5000/ci")


@pytest.mark.parametrize(
    ("image", "status"),
    [
        ("registry:5000/ci/hello:1", 200),
        ("registry:5000/ci/team/hello", 200),
        ("registry:5000/ci:1", 403),
        ("registry:5000/cicd/hello:1", 403),
        ("registry:5000/github/1/2/f:sha", 403),
        ("ci/hello", 403),
    ],
)
def test_a_client_pushes_below_its_prefix_only(
    image: str, status: int, clients: Settings, buildx: Buildx
) -> None:
    body = made(DOCKERFILE, config=json.dumps({"image": image}).encode())

    async def test(client: Client) -> None:
        headers = {"X-Build-Signature": signature.sign(body, CLIENTS)}
        answer = await client.post("/build", data=body, headers=headers)
        assert answer.status == status, await answer.text()
        target = f"/image?image=registry:5000/github/1/2/f&tag=sha&{at_now()}"
        assert (await client.get(target, **asked(target, CLIENTS))).status == 403
        target = target.replace("/image?", "/log?")
        assert (await client.get(target, **asked(target, CLIENTS))).status == 403
        assert (await client.post("/build", **signed(body))).status == 200  # the cloud may

    run(clients, test)


def test_without_a_prefix_clients_push_nowhere(clients: Settings, buildx: Buildx) -> None:
    body = made(DOCKERFILE, config=b'{"image": "registry:5000/ci/hello:1"}')

    async def test(client: Client) -> None:
        headers = {"X-Build-Signature": signature.sign(body, CLIENTS)}
        answer = await client.post("/build", data=body, headers=headers)
        assert (answer.status, "client_prefix" in await answer.text()) == (403, True)

    run(replace(clients, client_prefix=""), test)


def test_what_a_dockerfile_may_not_do_is_told_before_buildkit_starts(
    settings: Settings, buildx: Buildx
) -> None:
    evil = made(("context/Dockerfile", b"FROM scratch\nCOPY --from=registry:5000/github/7/7/f / /\n"))

    async def test(client: Client) -> None:
        last = lines_of(await (await client.post("/build", **signed(evil, **NDJSON))).text())[-1]
        assert (last["status"], last["code"], last["reason"]) == ("failed", "refused", "policy")
        assert "Dockerfile line 2" in last["error"]
        assert (await client.post("/build", **signed(evil))).status == 403

    run(settings, test)
    assert not buildx.calls


def test_a_base_image_with_onbuild_is_refused(settings: Settings, buildx: Buildx) -> None:
    name, (manifest, config) = "docker.io/library/python", ("sha256:" + mark * 64 for mark in "ab")
    images = {
        "python:3": {"manifests": [{"digest": manifest}]},
        f"{name}@{manifest}": {"config": {"digest": config}},
        f"{name}@{config}": {"config": {"OnBuild": ["RUN evil"]}},
    }
    (buildx.folder / "images").write_text(json.dumps(images))
    body = made(("context/Dockerfile", b"FROM python:3\n"))

    async def test(client: Client) -> None:
        answer = await client.post("/build", **signed(body))
        assert (answer.status, "ONBUILD instructions (RUN evil)" in await answer.text()) == (403, True)

    run(replace(settings, buildkit_url="tcp://of-buildkit:1234"), test)


@pytest.mark.parametrize(
    ("labels", "buildkit_url", "epoch", "pulls"),
    [
        ({}, "", "", False),
        ({}, "", "2026-11", True),
        ({LABEL: "1"}, "", "2026-11", False),
        ({LABEL: "1"}, "tcp://of-buildkit:1234", "2026-11", True),
    ],
    ids=["no epoch", "an epoch", "made on this machine", "standalone"],
)
def test_in_an_epoch_bases_are_pulled_and_no_older_step_is_used_again(
    labels: dict[str, str],
    buildkit_url: str,
    epoch: str,
    pulls: bool,
    settings: Settings,
    buildx: Buildx,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    in_engine = {"Config": {"Labels": labels, "OnBuild": None}}
    monkeypatch.setattr("of_builder.bases._in_engine", lambda image: in_engine)
    images = {"python:3": {"config": {"digest": "sha256:" + "c" * 64}}}
    images[f"docker.io/library/python@sha256:{'c' * 64}"] = {}
    (buildx.folder / "images").write_text(json.dumps(images))
    config = {"image": f"{IMAGE}:sha", **({"epoch": epoch} if epoch else {})}
    body = made(("context/Dockerfile", b"FROM python:3\n"), config=json.dumps(config).encode())

    async def test(client: Client) -> None:
        last = lines_of(await (await client.post("/build", **signed(body, **NDJSON))).text())[-1]
        assert last["status"] == "success"

    run(replace(settings, buildkit_url=buildkit_url), test)
    [argv] = [call for call in buildx.calls if call[0] == "build"]
    assert ("--pull" in argv) == pulls
    [host] = [word for word in argv if word.startswith("--add-host=")]
    assert (".epoch-" in host) == bool(epoch)
    looked = [call[-1] for call in buildx.calls if call[0] == "imagetools"]
    assert bool(looked) == pulls, "ONBUILD is looked for in what is taken"


def test_a_base_image_that_was_made_here_says_so() -> None:
    assert LABEL == MADE_HERE


def test_build_secrets_reach_buildkit_and_nothing_else(
    settings: Settings, buildx: Buildx, registry: FakeRegistry
) -> None:
    buildx.behave("tell")
    private = base64.b64encode(bytes(KEY.private)).decode()
    (Path(settings.secret_mount_path) / "builder-private-key").write_text(private)

    async def test(client: Client) -> None:
        told = await (await client.get("/publickey")).json()
        assert told == {"key_id": KEY.public[:8], "algorithm": "nacl/box", "public_key": KEY.public}
        envelope = ("com.openfaas.secrets", seal({"pip": "t0ken-of-pip"}, told["public_key"]))
        text = await (await client.post("/build", **signed(made(DOCKERFILE, envelope), **NDJSON))).text()
        assert ("t0ken" in text, "secret: ***" in text, lines_of(text)[-1]["status"]) == (
            False,
            True,
            "success",
        )
        target = f"/log?image={IMAGE}&tag=sha&{at_now()}"
        assert "secret: ***" in await (await client.get(target, **asked(target))).text()

    run(settings, test)
    [argv] = [call for call in buildx.calls if call[0] == "build"]
    assert "--secret=id=pip,env=OF_BUILDER_SECRET_0" in argv
    assert not any("t0ken" in word or "ctx-" in word for word in argv)
    assert list(Registry(registry.url).tags("github/1/2/f")) == ["log-sha"]


def test_readyz_asks_buildkit_and_the_registry_and_tells_what_is_not_enforced(
    settings: Settings, buildx: Buildx, registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "READY_SECONDS", 0)

    async def test(client: Client) -> None:
        answer = await client.get("/readyz")
        told = await answer.json()
        assert (answer.status, told["ready"], told["buildkit"], told["registry"]) == (200, True, "ok", "ok")
        assert told["protections"] == {
            "source_policy": True,
            "network": True,
            "processes": True,
            "own_store": False,
            "limits": False,
        }
        assert told["not_enforced"].keys() == {"own_store", "limits"}
        buildx.behave("away")
        answer = await client.get("/readyz")
        assert (answer.status, "nobody is there" in (await answer.json())["buildkit"]) == (503, True)
        registry.overrides.append(lambda method, path: (500, b""))
        buildx.behave("succeed")
        answer = await client.get("/readyz")
        assert (answer.status, "registry" in (await answer.json())["registry"]) == (503, True)

    run(settings, test)


def test_a_registry_secret_that_is_none_is_told_by_readyz(
    settings: Settings, buildx: Buildx, secret_folder: Path
) -> None:
    (secret_folder / "registry-secret").write_text("user:password")

    async def test(client: Client) -> None:
        answer = await client.get("/readyz")
        assert (answer.status, (await answer.json())["ready"]) == (503, False)

    run(settings, test)


def test_a_prune_that_fails_is_not_the_last(
    settings: Settings, buildx: Buildx, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "PRUNE_SECONDS", 0.01)
    tries: list[int] = []

    async def prune(self: BuildKit) -> bool:
        tries.append(1)
        raise OSError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(BuildKit, "prune", prune)

    async def test(client: Client) -> None:
        await until(lambda: len(tries) > 1, seconds=3)

    run(settings, test)


def test_strangers_code_is_not_built_by_an_engine_that_ignores_policies(
    settings: Settings, buildx: Buildx
) -> None:
    buildx.behave("old")

    async def test(client: Client) -> None:
        answer = await client.post("/build", **signed(TAR))
        assert (answer.status, "source_policy" in await answer.text()) == (500, True)
        ready = await client.get("/readyz")
        assert (ready.status, "untrusted_builds" in await ready.text()) == (503, True)

    run(replace(settings, untrusted_builds=True), test)


def test_skip_push_and_platforms_are_what_buildx_gets(settings: Settings, buildx: Buildx) -> None:
    config = {"image": f"{IMAGE}:1", "platforms": ["linux/amd64", "linux/arm64"], "skipPush": True}
    body = made(DOCKERFILE, config=json.dumps(config).encode())

    async def test(client: Client) -> None:
        assert (await client.post("/build", **signed(body))).status == 200

    run(settings, test)
    [argv] = [call for call in buildx.calls if call[0] == "build"]
    assert ("--output=type=cacheonly" in argv, "--platform=linux/amd64,linux/arm64" in argv) == (True, True)


def test_the_registrys_cache_and_login_are_handed_over_when_set(settings: Settings, buildx: Buildx) -> None:
    (Path(settings.secret_mount_path) / "registry-secret").write_text('{"auths": {"registry:5000": {}}}')

    async def test(client: Client) -> None:
        assert (await client.post("/build", **signed(TAR))).status == 200

    run(replace(settings, registry_cache=True, cgroup_parent="builds", https_proxy="http://proxy:1"), test)
    [argv] = [call for call in buildx.calls if call[0] == "build"]
    assert f"--cache-from=type=registry,ref={IMAGE}:cache" in argv
    assert any(word.startswith(f"--cache-to=type=registry,ref={IMAGE}:cache,mode=min") for word in argv)
    assert ("--cgroup-parent=builds" in argv, "--build-arg=HTTPS_PROXY=http://proxy:1" in argv) == (
        True,
        True,
    )
    environment = json.loads((buildx.folder / "environment").read_text())
    assert "/build-" in environment["DOCKER_CONFIG"]
    assert not {"secret_mount_path", "https_proxy"} & environment.keys()


def test_what_a_killed_of_builder_left_is_removed_and_what_a_living_one_has_is_not(tmp_path: Path) -> None:
    dead = tmp_path / "of-builder-dead"
    with workplace(str(tmp_path)) as living:
        (dead / "build-x").mkdir(parents=True)
        with workplace(str(tmp_path)) as second:
            assert set(tmp_path.iterdir()) == {living, second}
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("setting", "value"), [("listen", "nowhere"), ("build_timeout", "soon"), ("buildkit_url", "http://x")]
)
def test_a_setting_that_is_wrong_is_told_at_the_start(
    setting: str, value: str, settings: Settings, buildx: Buildx
) -> None:
    buildx.behave("refuse")
    command = [sys.executable, "-m", "of_builder"]
    environment = {**environment_of(settings), setting: value}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert done.stderr.startswith(f"of-builder: setting {setting}")


def test_fifty_megabytes_cost_at_most_half_of_that_in_memory(settings: Settings, buildx: Buildx) -> None:
    """Flaw 18: a context of 50 MB cost 130 MB."""
    big = made(DOCKERFILE, *((f"context/{number}", os.urandom(5 * 1024**2)) for number in range(10)))
    with builder_process(settings, {"request_limit_mb": "100"}) as (url, pid):
        warm = Builder(url, KEYS).build(TAR, signature.sign(TAR, KEYS), 30)
        before = peak_memory(pid)
        done = Builder(url, KEYS).build(big, signature.sign(big, KEYS), 60)
        assert warm.digest == done.digest
        assert peak_memory(pid) - before < 25 * 1024


def peak_memory(pid: int) -> int:
    """In KiB; Linux only."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def environment_of(settings: Settings) -> dict[str, str]:
    names = ("secret_mount_path", "work_folder", "registry_api_url")
    own = {name: str(getattr(settings, name)) for name in names}
    return {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'of-builder'}", **own}


@contextmanager
def builder_process(settings: Settings, changed: dict[str, str]) -> Iterator[tuple[str, int]]:
    """`python -m of_builder`, as it is served."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**environment_of(settings), "listen": f"127.0.0.1:{port}", **changed}
    process = subprocess.Popen([sys.executable, "-m", "of_builder"], env=environment)
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                requests.get(f"{url}/healthz", timeout=5)
                break
            except requests.ConnectionError:
                assert time.monotonic() < deadline
                time.sleep(0.05)
        yield url, process.pid
    finally:
        process.terminate()
        process.wait(20)


def test_get_says_what_it_is_and_that_it_is_alive(settings: Settings, buildx: Buildx) -> None:
    async def test(client: Client) -> None:
        about = await (await client.get("/")).json()
        assert about["name"] == "of-builder"
        assert (await client.get("/healthz")).status == 200
        assert (await client.get("/nothing")).status == 404
        wrong = await client.get("/build")
        assert (wrong.status, "POST /build" in (await wrong.json())["error"]["message"]) == (405, True)

    run(settings, test)


REPLIES = json.loads((DATA / "faas-cli" / "replies.json").read_text())


@pytest.mark.parametrize("row", [row for row in REPLIES if "reply" in row], ids=lambda row: row["name"])
def test_the_model_of_faas_cli_is_what_was_recorded(row: dict[str, Any]) -> None:
    body = "".join(row["reply"]["body"]).replace("<70000 x a>", "a" * 70_000)
    found = faas_cli.verdict(row["reply"]["status"], body.encode())
    assert found.exit_code == row["exit_code"]
    assert found.is_success == ("success building and pushing" in "".join(row["stderr"]))


RECORDED = (DATA / "faas-cli" / "request-publish.tar").read_bytes()


@pytest.mark.parametrize(
    ("behaviour", "exit_code", "said"),
    [
        ("succeed", 0, ""),
        ("chatter", 0, ""),
        ('ERROR: process "x" did not complete successfully: exit code: 2', 1, "exit code: 2"),
        ("ERROR: failed to solve: Unavailable: connection error", 1, "connection error"),
    ],
)
def test_faas_cli_understands_every_answer_to_its_recorded_request(
    behaviour: str, exit_code: int, said: str, settings: Settings, buildx: Buildx
) -> None:
    buildx.behave(behaviour)

    async def test(client: Client) -> None:
        answer = await client.post("/build", **signed(RECORDED, **NDJSON))
        found = faas_cli.verdict(answer.status, await answer.read())
        assert (found.exit_code, found.is_success) == (exit_code, exit_code == 0)
        assert said in found.error

    run(settings, test)


def test_faas_cli_is_told_when_of_builder_stops_or_refuses(settings: Settings, buildx: Buildx) -> None:
    buildx.behave("hang")

    async def test(client: Client) -> None:
        refused = await client.post(
            "/build", data=RECORDED, headers={"X-Build-Signature": "sha256=0", **NDJSON}
        )
        assert faas_cli.verdict(refused.status, await refused.read()).exit_code == 1
        answer = await client.post("/build", **signed(RECORDED, **NDJSON))
        await answer.content.readline()
        stopping = asyncio.create_task(client.server.close())
        assert faas_cli.verdict(answer.status, await answer.read()).exit_code == 1
        await stopping

    run(settings, test)


# What faas-cli sends too, and no registry takes.
NO_IMAGES = ("image-uppercase-port", "no-image", "tag-branch-with-slash", "tag-sha-without-git")
VARIANTS = json.loads((DATA / "faas-cli" / "request-variants.json").read_text())


@pytest.mark.parametrize(
    "row",
    [row for row in VARIANTS if "config_raw" in row and "secrets" not in row["name"]],
    ids=lambda row: row["name"],
)
def test_every_recorded_configuration_is_built_or_refused_for_its_image(
    row: dict[str, Any], settings: Settings, buildx: Buildx
) -> None:
    body = made(DOCKERFILE, config=row["config_raw"].encode())

    async def test(client: Client) -> None:
        answer = await client.post("/build", **signed(body, **NDJSON))
        if row["name"] in NO_IMAGES:
            assert (answer.status, "name of an image" in await answer.text()) == (400, True)
        else:
            assert lines_of(await answer.text())[-1]["status"] == "success"

    run(settings, test)


@pytest.mark.parametrize("url", ["tcp://of-buildkit:1234", "unix:///run/buildkit/buildkitd.sock"])
def test_a_standalone_buildkitd_is_what_every_call_drives(
    url: str, settings: Settings, buildx: Buildx
) -> None:
    remote = replace(settings, buildkit_url=url, insecure=True)
    for file in ("buildkit-ca.pem", "buildkit-key.pem", "buildkit-cert.pem"):
        (Path(settings.secret_mount_path) / file).touch()

    async def test(client: Client) -> None:
        assert (await client.post("/build", **signed(TAR))).status == 200
        assert await BuildKit(remote, Path(settings.work_folder)).prune()

    run(remote, test)
    calls = {call[0]: call for call in buildx.calls}
    folder = settings.secret_mount_path
    tls = f"cacert={folder}/buildkit-ca.pem,cert={folder}/buildkit-cert.pem,key={folder}/buildkit-key.pem"
    options = [f"--driver-opt={tls}"] if url.startswith("tcp") else []
    assert calls["create"] == ["create", "--driver=remote", "--name=of-buildkit", *options, "--", url]
    assert "--output=type=registry,registry.insecure=true,rewrite-timestamp=true" in calls["build"]
    assert all("--builder=of-buildkit" in calls[name] for name in ("build", "prune"))


def test_the_engines_own_buildkit_needs_no_builder(settings: Settings, buildx: Buildx) -> None:
    async def test(client: Client) -> None:
        assert (await client.post("/build", **signed(TAR))).status == 200
        assert await BuildKit(settings, Path(settings.work_folder)).prune()

    run(settings, test)
    assert sorted(call[0] for call in buildx.calls) == ["build", "prune"]
    assert not any(word.startswith("--builder") for call in buildx.calls for word in call)


@pytest.mark.skipif(not any(map(shutil.which, _PLUGINS)), reason="buildx is not installed")
def test_the_real_buildx_finds_the_builder_that_it_was_told_of(
    tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no-engine")
    remote = BuildKit(replace(settings, buildkit_url=f"unix://{tmp_path}/no-buildkitd"), tmp_path)
    wrong = BuildKit(replace(settings, buildkit_url="http://of-buildkit"), tmp_path / "other")
    (tmp_path / "context").mkdir()
    (tmp_path / "context" / "Dockerfile").write_text("FROM scratch\n")
    job = Job(tmp_path / "context", Config("a/b"), "c")

    async def test() -> None:
        await remote.create()
        async with aclosing(build(job, tmp_path, {}, remote)) as lines:
            assert (await anext(lines)).log == ["#1 [internal] waiting for connection"]
        with pytest.raises(Misconfigured, match="buildkit_url"):
            await wrong.create()

    asyncio.run(test())


def test_what_the_doctor_has_built_is_built_as_any_other(
    settings: Settings, buildx: Buildx, secret_folder: Path
) -> None:
    """The stand-in for BuildKit pushes nothing, and that is noticed."""

    async def test(client: Client) -> None:
        given = {"builder_url": str(client.make_url("/")), "secret_mount_path": str(secret_folder)}
        found = await asyncio.to_thread(neighbours, FunctionSettings.read(given))
        assert found == {
            "of-builder": "",
            "registry push": "",
            "registry pull": "upstream: the registry does not have what was just pushed",
        }
        tag = "--tag=registry:5000/github/0/0/doctor:check"
        assert [call for call in buildx.calls if tag in call or tag.removeprefix("--tag=") in " ".join(call)]

    run(settings, test)
