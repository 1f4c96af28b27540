"""of-builder as its clients meet it, with each BuildKit: whose failure it is, and what a success is worth."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import docker
import pytest
import requests

from sdk.registry import Registry
from tests.conftest import DATA

from . import builder as builders
from .builder import Answer, Driver, OfBuilder, content, free_port, of_builder, tar, unique
from .cloud import until

SCRATCH = "FROM scratch\nCOPY Dockerfile /\n"
# The password is `secret`: what `htpasswd -B` writes.
LOGIN = ("e2e", "secret")
USERS = "e2e:$2b$05$e2ebuildertestsaltsaleE6iQ67nUbITB9TXzDc8UPU7snW69e1y\n"
# From the client's or the service's end to the step's: a second, and what it takes us to look.
SOON = 1.5


def pulled(api: Registry, path: str, digest: str) -> list[bytes]:
    """All that the image is made of, by digest, as an engine would pull it."""
    found = api.manifest(path, digest)
    assert found, f"{path}@{digest} is not in the registry"
    assert f"sha256:{hashlib.sha256(found.content).hexdigest()}" == digest
    rows: dict[str, Any] = found.rows
    parts = [found.content]
    for row in rows.get("manifests", ()):
        parts += pulled(api, path, row["digest"])
    for row in [rows["config"], *rows["layers"]] if "layers" in rows else ():
        parts.append(api.blob(path, row["digest"], limit=1024**3))
    return parts


def layers(api: Registry, path: str, digest: str) -> list[str]:
    found = api.manifest(path, digest)
    assert found
    rows: Any = found.rows["layers"]
    return [row["digest"] for row in rows]


def runs(mark: str) -> bool:
    """Whether a program with this word runs on this machine, in whatever container."""
    return any(
        mark.encode() in content(folder / "cmdline").split(b"\0") for folder in Path("/proc").glob("[0-9]*")
    )


def sleeping(base: str) -> tuple[str, str]:
    """A Dockerfile whose step takes very long, and the word by which to find its program."""
    mark = f"1000.{uuid.uuid4().int % 10**12}"
    return f"FROM {base}\nRUN exec sleep {mark}\n", mark


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "json"])
@pytest.mark.parametrize(
    ("dockerfile", "reason", "said", "logged"),
    [
        ("FROM scratch\nFRM x", "syntax", "line 2: unknown instruction: FRM", ""),
        ("RUN x", "syntax", "no build stage in current context", ""),
        ("FROM BASE\nRUN echo 'to be seen'; exit 7", "step", "Dockerfile line 2: ", "to be seen"),
        ("FROM OTHER/no/such:1", "base", "OTHER/no/such:1: not found", ""),
        ("FROM scratch\nCOPY nothing /", "copy", "it is not in the build context", ""),
        (
            "FROM scratch\nCOPY --from=quay.io/x/y / /",
            "policy",
            "line 2: the image quay.io/x/y is not allowed",
            "",
        ),
    ],
)
def test_what_the_author_did_is_the_authors(
    dockerfile: str, reason: str, said: str, logged: str, stream: bool, builder: OfBuilder
) -> None:
    driver = builder.driver
    text = dockerfile.replace("BASE", driver.base).replace("OTHER", driver.other_registry)
    answer = builder.build(f"{text}\n", stream=stream)
    assert answer.last["reason"] == reason, answer.last
    assert said.replace("OTHER", driver.other_registry) in answer.error
    assert any(line.endswith(f" {logged}") or not logged for line in answer.log.splitlines() or [""])
    if stream:
        assert (answer.status, answer.last["code"]) == (200, "refused" if reason == "policy" else "failed")
    else:
        assert answer.status == (403 if reason == "policy" else 422)


def test_a_failing_step_shows_its_exit_code_and_last_lines(builder: OfBuilder) -> None:
    program = "for i in $(seq 500); do echo line $i; done; exit 7"
    answer = builder.build(f"FROM {builder.driver.base}\nRUN {program}\n")
    assert "exit code: 7" in answer.error
    assert "line 500" in answer.log


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "json"])
def test_a_build_that_takes_too_long_ends_and_its_step_too(
    stream: bool, driver: Driver, tmp_path: Path
) -> None:
    dockerfile, mark = sleeping(driver.base)
    with of_builder(driver, tmp_path, build_timeout="1s") as builder:
        answer = builder.build(dockerfile, stream=stream)
        until(lambda: not runs(mark), SOON, "the end of the step")
    assert (answer.status, answer.last["reason"]) == (200 if stream else 422, "timeout")
    assert "takes longer than 1 s" in answer.error


def test_without_a_buildkit_it_is_nobodys_fault(driver: Driver, tmp_path: Path) -> None:
    nowhere = f"unix://{tmp_path}/nobody"
    gone = {"DOCKER_HOST": nowhere} if driver.is_engine else {"buildkit_url": nowhere}
    with of_builder(driver, tmp_path, **gone) as builder, ThreadPoolExecutor(2) as pool:
        ready = requests.get(f"{builder.url}/readyz", timeout=30)
        assert requests.get(f"{builder.url}/healthz", timeout=30).ok
        # buildx tries for 20 s to reach a standalone one.
        answering = [pool.submit(builder.build, SCRATCH, stream=stream) for stream in (True, False)]
        for stream, answer in zip((True, False), answering, strict=True):
            check_it_is_ours(answer.result(), "buildkit", stream)
    assert (ready.status_code, ready.json()["registry"]) == (503, "ok")


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "json"])
def test_without_a_registry_it_is_nobodys_fault(stream: bool, driver: Driver, tmp_path: Path) -> None:
    host = f"127.0.0.1:{free_port()}"
    with of_builder(driver, tmp_path, registry_api_url=f"http://{host}") as builder:
        answer = builder.build(SCRATCH, f"{host}/{unique()}:1", stream=stream)
        ready = requests.get(f"{builder.url}/readyz", timeout=30)
    check_it_is_ours(answer, "registry", stream)
    assert (ready.status_code, ready.json()["buildkit"]) == (503, "ok")


def check_it_is_ours(answer: Answer, reason: str, stream: bool) -> None:
    assert (answer.last["code"], answer.last["reason"]) == ("unavailable", reason), answer.last
    assert answer.status == (200 if stream else 503)
    assert stream or int(answer.headers["Retry-After"]) > 0


def test_a_full_queue_tells_when_to_come_back(driver: Driver, tmp_path: Path) -> None:
    dockerfile, mark = sleeping(driver.base)
    with of_builder(driver, tmp_path, parallel_builds=1, queued_builds=0) as builder:
        with closing(builder.open(tar(dockerfile, builder.image()))):
            until(lambda: runs(mark), what="the step")
            for stream in (True, False):
                answer = builder.build(SCRATCH, stream=stream)
                assert (answer.status, int(answer.headers["Retry-After"]) > 0) == (503, True)
                assert answer.last["error"]["code"] == "busy"
        until(lambda: not runs(mark), SOON, "the end of the step")
        until(lambda: builder.build(SCRATCH).status == 200, 10, "a place in the queue")


def test_whatever_is_a_success_can_be_pulled_by_its_digest(builder: OfBuilder) -> None:
    def build(number: int) -> tuple[str, str]:
        image = builder.image(tag=str(number))
        return image, builder.build(SCRATCH, image, files={"x": str(number)}).digest

    with ThreadPoolExecutor(4) as pool:
        for image, digest in pool.map(build, range(6)):
            path, _, tag = image.removeprefix(f"{builder.registry}/").rpartition(":")
            assert len(pulled(builder.api, path, digest)) == 3
            assert builder.api.digest(path, tag) == digest


@pytest.mark.parametrize("how", ["client", "SIGTERM"])
def test_a_build_that_nobody_waits_for_ends_within_a_second(how: str, driver: Driver, tmp_path: Path) -> None:
    dockerfile, mark = sleeping(driver.base)
    with of_builder(driver, tmp_path) as builder:
        answer = builder.open(tar(dockerfile, builder.image()))
        until(lambda: runs(mark), what="the step")
        if how == "client":
            answer.close()
        else:
            builder.process.terminate()
        until(lambda: not runs(mark), SOON, "the end of the step")
        until(lambda: not list(builder.work.glob("of-builder-*/build-*")), SOON, "the end of its folder")
        if how == "client":
            assert builder.build(SCRATCH).digest
            assert builder.metric('of_builder_builds_total{reason="",result="cancelled"}') == 1
        else:
            *_, last = [json.loads(line) for line in answer.iter_lines() if line]
            assert (last["reason"], last["code"]) == ("stopped", "unavailable")
            assert builder.process.wait(5) == 0
            assert not list(builder.work.glob("of-builder-*"))


def test_a_killed_of_builder_leaves_no_program_and_its_successor_tidies_up(
    driver: Driver, tmp_path: Path
) -> None:
    dockerfile, mark = sleeping(driver.base)
    with of_builder(driver, tmp_path) as builder:
        answer = builder.open(tar(dockerfile, builder.image()))
        until(lambda: runs(mark), what="the step")
        assert builder.buildx()
        builder.process.kill()
        until(lambda: not builder.buildx() and not runs(mark), SOON, "the end of the step")
        answer.close()
        assert list(builder.work.glob("of-builder-*/build-*"))
    with of_builder(driver, tmp_path) as builder:
        [own] = builder.work.glob("of-builder-*")
        assert not list(own.glob("build-*"))
        assert builder.build(SCRATCH).digest


def test_the_same_twice_at_once_is_one_build_with_both_tags(builder: OfBuilder) -> None:
    """And the second request is told what the first one was."""
    path, joined = unique(), builder.metric("of_builder_joined_total")
    dockerfile = f"FROM {builder.driver.base}\nRUN sleep 2; echo all of it {uuid.uuid4()}\n"
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(builder.build, dockerfile, builder.image(path, "one"))
        until(lambda: builder.metric("of_builder_running") == 1, what="the first build")
        second = pool.submit(builder.build, dockerfile, builder.image(path, "two"))
        answers = [first.result(), second.result()]
    assert builder.metric("of_builder_joined_total") == joined + 1
    assert answers[0].digest == answers[1].digest
    assert answers[0].log == answers[1].log
    repository = f"{builders.PATH}/{path}"
    assert {builder.api.digest(repository, tag) for tag in ("one", "two")} == {answers[0].digest}


def test_a_build_secret_reaches_its_step_and_nothing_else(builder: OfBuilder) -> None:
    """Sealed as faas-cli does (tests/data/faas-cli/request-variants.json, `build-secrets`)."""
    secret, image, mark = f"pip-{uuid.uuid4().hex}", builder.image(), f"2.{uuid.uuid4().int % 10**9}"
    dockerfile = (
        f"FROM {builder.driver.base} AS work\n"
        "RUN --mount=type=secret,id=pip cp /run/secrets/pip /tmp/got; cat /tmp/got; sha256sum /tmp/got; "
        f"echo {'long ' * 36}$(cat /tmp/got){' line' * 50}; rm /tmp/got; sleep {mark}\n"
        "RUN echo done > /result\n"
        "FROM scratch\nCOPY --from=work /result /\n"
    )
    request = tar(dockerfile, image, secrets=builder.seal(pip=f"{secret}\n"))
    with ThreadPoolExecutor(1) as pool:
        answering = pool.submit(builder.post, request)
        until(lambda: runs(mark), what="the step")
        files = [content(file) for file in builder.work.rglob("*") if file.is_file()]
        answer = answering.result()
    path = builder.repository(image)
    arrived = hashlib.sha256(f"{secret}\n".encode()).hexdigest()
    assert f"{arrived}  /tmp/got" in answer.log
    assert "***" in answer.log
    log = builder.get("log", image=image.rpartition(":")[0], tag="1").text
    assert "***" in log
    image_parts = pulled(builder.api, path, answer.digest)
    unpacked = [gzip.decompress(part) for part in image_parts if part[:2] == b"\x1f\x8b"]
    for place in (*files, json.dumps(answer.lines).encode(), log.encode(), *image_parts, *unpacked):
        assert secret.encode() not in place
        assert secret[:16].encode() not in place, "nor a part of it"
    assert set(builder.api.tags(path)) == {"1", "log-1"}


def test_a_log_is_kept_of_what_succeeded_and_of_what_failed(builder: OfBuilder) -> None:
    path, url = unique(), "https://user:password123@example.com/"
    for tag, end, said in (("good", "true", "DONE"), ("bad", "exit 3", "ERROR: Dockerfile line 2")):
        image = builder.image(path, tag)
        answer = builder.build(f"FROM {builder.driver.base}\nRUN echo from {url} {tag}; {end}\n", image)
        assert answer.last["status"] == ("success" if tag == "good" else "failed")

        def kept(tag: str = tag, image: str = image) -> requests.Response:
            return builder.get("log", image=image.rpartition(":")[0], tag=tag)

        until(lambda: kept().headers.get("X-Build-Status") == "ended", 10, "the log")
        text = kept().text
        assert f"from https://***@example.com/ {tag}" in text
        assert said in text
        assert "password123" not in text + answer.log


def test_without_a_push_nothing_is_pushed(builder: OfBuilder) -> None:
    image = builder.image()
    answer = builder.build(SCRATCH, image, skipPush=True)
    assert (answer.last["status"], "digest" in answer.last) == ("success", False)
    assert not list(builder.api.tags(builder.repository(image)))
    assert builder.get("image", image=image.rpartition(":")[0], tag="1").status_code == 404


def test_several_platforms_make_an_index(builder: OfBuilder) -> None:
    image = builder.image()
    answer = builder.build(SCRATCH, image, platforms=["linux/amd64", "linux/arm64"])
    manifest = builder.api.manifest(builder.repository(image), answer.digest)
    assert manifest
    rows: Any = manifest.rows["manifests"]
    assert [row["platform"]["architecture"] for row in rows] == ["amd64", "arm64"]
    assert len(pulled(builder.api, builder.repository(image), answer.digest)) == 7


def test_a_registry_with_a_login_gets_the_one_of_the_secret(
    driver: Driver, engine: docker.DockerClient, tmp_path: Path
) -> None:
    with builders.registry(engine, USERS) as host:
        auth = base64.b64encode(":".join(LOGIN).encode()).decode()
        config = json.dumps({"auths": {host: {"auth": auth}}})
        api, image = Registry(f"http://{host}", LOGIN), f"{host}/{unique()}:1"
        url = {"registry_api_url": f"http://{host}"}
        with of_builder(driver, tmp_path / "in", **url, secret_registry_secret=config) as builder:
            answer = builder.build(SCRATCH, image)
            assert pulled(api, image.removeprefix(f"{host}/")[:-2], answer.digest)
            found = builder.get("image", image=image[:-2], tag="1")
            assert found.json()["digest"] == answer.digest
            assert "log-1" in api.tags(image.removeprefix(f"{host}/")[:-2])
        with of_builder(driver, tmp_path / "out", **url) as builder:
            refused = builder.build(SCRATCH, f"{host}/{unique()}:1", stream=False)
            assert (refused.status, refused.last["reason"]) == (500, "registry"), refused.last
            assert "registry-secret" in requests.get(f"{builder.url}/readyz", timeout=30).json()["registry"]
        builders.remove_images(engine, f"{host}/")


def test_the_cache_in_the_registry_warms_a_buildkit_that_has_none(driver: Driver, tmp_path: Path) -> None:
    path, nonce = unique(), uuid.uuid4()
    dockerfile = f"FROM {driver.base}\nRUN echo {nonce} > /x\nCOPY last /\n"
    with of_builder(driver, tmp_path, registry_cache="true") as builder:
        assert builder.build(dockerfile, builder.image(path, "1"), files={"last": "1"}).digest
        assert "cache" in builder.api.tags(f"{builders.PATH}/{path}")
        if driver.is_engine:
            return  # its cache is everybody's here
        driver.buildctl("prune", "--all")
        answer = builder.build(dockerfile, builder.image(path, "2"), files={"last": "2"})
    [step] = [step for step in answer.last["steps"] if "RUN echo" in step["name"]]
    assert step["cached"], answer.log


def test_the_same_context_gives_the_same_layers(driver: Driver, builder: OfBuilder) -> None:
    if driver.is_engine:
        pytest.skip("the engine's exporter can't rewrite times")
    path = unique()
    dockerfile = f"FROM {driver.base}\nRUN echo {uuid.uuid4()} > /x\nCOPY . /app/\n"
    found: list[list[str]] = []
    for tag in ("1", "2"):
        if found:
            driver.buildctl("prune", "--all")
        answer = builder.build(dockerfile, builder.image(path, tag), files={"a": "a", "b/c": "c"})
        found.append(layers(builder.api, f"{builders.PATH}/{path}", answer.digest))
    assert found[0] == found[1]


def test_faas_clis_recorded_publish_is_answered_cleanly(builder: OfBuilder) -> None:
    """Its base image is on no list here, or not there: what counts is that all of it is understood."""
    body = (DATA / "faas-cli" / "request-publish.tar").read_bytes()
    answer = builder.post(body)
    assert (answer.status, answer.last["status"]) == (200, "failed")
    assert answer.last["image"] == "registry.example/acme/hello:0.1.0"
    assert answer.error
