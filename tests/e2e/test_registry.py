"""Retention and garbage collection with the real registry, in a container of its own.

The gateway is a list of functions: what it runs are digests of this registry alone.
"""

from __future__ import annotations

import json
import secrets
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import docker
import pytest
import requests
from docker.models.containers import Container

from local import base_image
from local import images as platform
from local.containers import SECRETS_PATH
from sdk.errors import CloudError
from sdk.registry import Registry
from sdk.specs import LAST_READY, pack
from tests import images
from tests.contract.fakes import FakeGateway, running

from .cloud import execute, until

PATH = "local/12/34/hello"
LAYER = 1_000_000
DAY = 24 * 3600
STORAGE = "/var/lib/registry/docker/registry/v2"
CLUSTER = "/etc/openfaas-cloud/registry"
# htpasswd -nB
PASSWORDS = "ci:$2b$12$pi4i7JVcJ8i4UkOxd/SUfeQoFGfyecNojYCG2p7UMaKkH1Dpjc0Hq\n"  # of x


@dataclass
class Real:
    """A registry that runs. In its container, where its care runs, it is at 127.0.0.1:5000."""

    container: Container

    @property
    def address(self) -> str:
        self.container.reload()
        published = self.container.ports["5000/tcp"]
        assert published
        return f"127.0.0.1:{published[0]['HostPort']}"

    @property
    def registry(self) -> Registry:
        return Registry(f"http://{self.address}")

    def retention(self, *arguments: str) -> tuple[int, str]:
        ended = self.container.exec_run(["python", "-m", "registry.retention", *arguments])
        assert isinstance(ended.output, bytes)
        return int(ended.exit_code or 0), ended.output.decode()

    def cycle(self) -> str:
        """Ask for a cycle, as an operator does; what it wrote."""
        before = len(self.container.logs())
        self.container.kill("HUP")
        until(lambda: b"garbage collect" in self.container.logs()[before:], what="the garbage collection")
        until(self.answers, what="an answer of the registry")
        return self.container.logs()[before:].decode()

    def answers(self) -> bool:
        try:
            self.registry.ping()
        except CloudError:
            return False
        return True

    def age(self) -> None:
        """As if all that is there had been pushed two days ago."""
        execute(
            self.container, "find", STORAGE, "-name", "link", "-exec", "touch", "-d", "2 days ago", "{}", "+"
        )

    def space(self) -> int:
        return int(execute(self.container, "du", "-sb", f"{STORAGE}/blobs").split()[0])

    def pull(self, path: str, name: str) -> None:
        """All of an image, log or index, by the digests that its manifests say."""
        manifest = self.registry.manifest(path, name)
        assert manifest, f"{path} {name} is gone"
        rows = json.loads(manifest.content)
        for part in (*rows.get("layers", ()), *([rows["config"]] if "config" in rows else ())):
            assert len(self.registry.blob(path, part["digest"])) == part["size"]
        for child in rows.get("manifests", ()):
            if child["mediaType"] == images.IMAGE:
                self.pull(path, child["digest"])
            else:
                self.registry.blob(path, child["digest"])


Start = Callable[..., Real]


@pytest.fixture
def engine() -> docker.DockerClient:
    return docker.from_env(timeout=60)


@pytest.fixture
def start(engine: docker.DockerClient) -> Iterator[Start]:
    base = base_image.ensure(engine)
    tag = platform.ensure(engine, base, [platform.REGISTRY])[platform.REGISTRY.name]
    made: list[Container] = []

    def run(environment: Mapping[str, str], folders: Mapping[Path, str], *command: str) -> Real:
        container = engine.containers.run(
            tag,
            list(command) or None,
            detach=True,
            init=True,
            ports={"5000/tcp": ("127.0.0.1", 0)},
            environment=dict(environment),
            volumes={str(folder): {"bind": target, "mode": "ro"} for folder, target in folders.items()},
        )
        made.append(container)
        return Real(container)

    yield run
    for container in made:
        container.remove(force=True, v=True)


@pytest.fixture
def gateway(engine: docker.DockerClient) -> Iterator[FakeGateway]:
    """At this machine's address on the network that the containers of this test are in."""
    server = FakeGateway(engine.networks.get("bridge").attrs["IPAM"]["Config"][0]["Gateway"])
    with running(server):
        yield server


@pytest.fixture
def real(start: Start, gateway: FakeGateway, secret_folder: Path) -> Real:
    settings = {"gateway_url": gateway.url, "retention": "delete", "keep": "2"}
    found = start(settings, {secret_folder: SECRETS_PATH})
    until(found.answers, what="an answer of the registry")
    return found


def push(real: Real, *tags: str, age: float, path: str = PATH) -> str:
    at = images.at(time.time() - age)
    return images.image(real.registry, path, *tags, created=at, layer=secrets.token_bytes(LAYER))


def pushes(real: Real) -> list[str]:
    """Six versions, the oldest first, each with its two tags and its log; `latest` moves."""
    digests = []
    for number in range(6):
        age = 10 * DAY - number * DAY
        digests.append(push(real, f"sha{number}", f"ctx-{number}", "latest", age=age))
        at, text = images.at(time.time() - age), b"#1 %d\n" % number
        images.log(real.registry, PATH, f"log-sha{number}", f"log-ctx-{number}", created=at, text=text)
    return digests


def multi(real: Real, *tags: str, age: float) -> tuple[str, list[str]]:
    children = {name: push(real, age=age) for name in ("amd64", "arm64")}
    return images.index(real.registry, PATH, children, *tags), list(children.values())


def test_what_is_kept_can_be_pulled_and_the_space_of_the_rest_comes_back(
    real: Real, gateway: FakeGateway
) -> None:
    versions = pushes(real)
    overwritten = push(real, "moving", age=9 * DAY)
    moved = push(real, "moving", age=DAY)
    index, children = multi(real, "multi", age=2 * DAY)
    old_index, old_children = multi(real, "multi-old", age=20 * DAY)
    cache = images.cache(real.registry, PATH, "cache", layer=secrets.token_bytes(LAYER))
    gateway.functions["hello"] = {
        "image": f"127.0.0.1:5000/{PATH}:sha0@{versions[0]}",
        "annotations": {LAST_READY: pack({"image": f"127.0.0.1:5000/{PATH}@{versions[1]}"})},
    }
    real.age()
    again = push(real, "again", age=30 * DAY)  # an old image that is pushed, and deployed, right now
    gone = [*versions[2:], overwritten, old_index, *old_children]
    stay = [versions[0], versions[1], moved, index, *children, cache, again]
    logs = [f"log-{kind}{number}" for kind in ("sha", "ctx-") for number in (0, 1, 4, 5)]

    # Without the storage, what has no tag is not known.
    status, told = real.retention("--dry-run", "--storage", "")
    assert (status, overwritten[:19] in told) == (0, False)
    status, told = real.retention("--dry-run")
    assert status == 0, told
    assert all(digest[:19] in told for digest in gone)
    assert not any(digest[:19] in told for digest in stay)
    assert "dry run, --delete would delete: 10 of 22 manifests, 7.0 MB of space" in told
    for digest in (*gone, *stay):
        real.pull(PATH, digest)

    status, told = real.retention("--delete")
    assert status == 0, told
    assert "deleted: 10 of 22 manifests" in told
    full = real.space()
    told = real.cycle()
    assert "garbage collected: " in told
    assert 7 * LAYER < full - real.space() < 8 * LAYER
    for name in (*stay, *logs, "multi", "moving", "cache", "sha0", "ctx-1", "again"):
        real.pull(PATH, name)
    assert not any(real.registry.digest(PATH, digest) for digest in gone)
    assert set(real.registry.tags(PATH)) == {
        *logs,
        *("sha0", "ctx-0", "sha1", "ctx-1", "multi", "moving", "cache", "again"),
    }
    # The registry has forgotten the layers, too: what is built again is pushed in full.
    real.pull(PATH, push(real, "sha5", age=0))


def test_a_cycle_deletes_and_one_that_cannot_serves_on(real: Real, gateway: FakeGateway) -> None:
    versions = pushes(real)
    real.age()
    gateway.overrides.append(lambda method, path, body: (500, b"no idea"))
    told = real.cycle()
    assert "nothing (more) is deleted" in told
    assert "garbage collected: 0 blobs" in told
    gateway.overrides.clear()
    told = real.cycle()
    assert "not one function" in told
    for digest in versions:
        real.pull(PATH, digest)
    gateway.functions["hello"] = {"image": f"registry.example.com/{PATH}:sha1"}
    told = real.cycle()
    assert "deleted: 6 of 12 manifests" in told
    assert [digest for digest in versions if real.registry.digest(PATH, digest)] == [
        versions[1],
        *versions[4:],
    ]


def test_the_clusters_configuration_has_tls_and_a_login(
    start: Start, gateway: FakeGateway, secret_folder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "registry"
    folder.mkdir()
    (folder / "htpasswd").write_text(PASSWORDS)
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=registry",
    ]
    names = ("-addext", "subjectAltName=IP:127.0.0.1")
    files = ("-keyout", str(folder / "tls.key"), "-out", str(folder / "tls.crt"))
    subprocess.run([*command, *names, *files], check=True, capture_output=True)
    settings = {
        "REGISTRY_STORAGE": "filesystem",
        "REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY": "/var/lib/registry",
        "REGISTRY_STORAGE_DELETE_ENABLED": "true",  # it takes the place of the whole part `storage`
        "REGISTRY_HTTP_SECRET": "test",
        "SSL_CERT_FILE": f"{CLUSTER}/tls.crt",
        "gateway_url": gateway.url,
    }
    serve = ("docker-registry", "serve", "/etc/openfaas-cloud/registry-cluster.yml")
    real = start(settings, {folder: CLUSTER, secret_folder: SECRETS_PATH}, *serve)
    url = f"https://{real.address}"

    def status(login: tuple[str, str] | None, method: str = "GET", path: str = "") -> int:
        certificate = str(folder / "tls.crt")
        return requests.request(
            method, f"{url}/v2/{path}", auth=login, verify=certificate, timeout=5
        ).status_code

    def answers() -> bool:
        try:
            return bool(status(None))
        except requests.ConnectionError:
            return False

    until(answers, what="an answer of the registry")
    assert (status(None), status(("ci", "wrong")), status(("ci", "x"))) == (401, 401, 200)
    missing = f"{PATH}/manifests/sha256:{'0' * 64}"
    assert status(("ci", "x"), "DELETE", missing) == 404, "deletes are enabled"
    gateway.functions["hello"] = {"image": "x/y"}
    where = ("--registry", "https://127.0.0.1:5000")
    assert "registry-secret" in real.retention(*where)[1]
    login = {"auths": {"127.0.0.1:5000": {"username": "ci", "password": "x"}}}
    (secret_folder / "registry-secret").write_text(json.dumps(login))
    ended, told = real.retention(*where)
    assert (ended, "0 of 0 manifests" in told) == (0, True), told
