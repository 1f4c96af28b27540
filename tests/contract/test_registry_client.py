"""Our registry client against a registry that enforces the protocol."""

from __future__ import annotations

import base64
import json
import socket
import threading
from collections.abc import Iterator

import pytest
import requests

from sdk.errors import CloudError, Misconfigured, Missing, Unavailable, Upstream
from sdk.registry import Credentials, Registry
from tests import images

from .fake_registry import LOGIN, FakeRegistry
from .fakes import Answer, running

PATH = "local/12/34/hello"


@pytest.fixture(params=["", "basic", "bearer"])
def fake(request: pytest.FixtureRequest) -> Iterator[FakeRegistry]:
    server = FakeRegistry(request.param)
    with running(server):
        yield server


def client(fake: FakeRegistry) -> Registry:
    return Registry(fake.url, LOGIN if fake.auth else None)


def test_what_is_pushed_is_read_again(fake: FakeRegistry) -> None:
    registry = client(fake)
    registry.ping()
    digest = images.image(registry, PATH, "a", created=images.at(1e9))
    assert registry.digest(PATH, "a") == registry.digest(PATH, digest) == digest
    manifest = registry.manifest(PATH, "a")
    assert manifest
    assert (manifest.digest, manifest.media_type) == (digest, images.IMAGE)
    assert manifest.rows["mediaType"] == images.IMAGE
    layers = json.loads(manifest.content)["layers"]
    assert registry.blob(PATH, layers[0]["digest"]) == b"layer"


def test_a_tag_more_needs_no_build(fake: FakeRegistry) -> None:
    registry = client(fake)
    digest = images.image(registry, PATH, "a")
    manifest = registry.manifest(PATH, "a")
    assert manifest
    registry.put_manifest(PATH, "b", manifest)
    assert registry.digest(PATH, "b") == digest


def test_a_blob_that_is_there_is_not_sent_again(fake: FakeRegistry) -> None:
    registry = client(fake)
    assert registry.put_blob(PATH, b"x") == registry.put_blob(PATH, b"x")
    assert len([call for call in fake.made("PUT", "/v2/") if call[3] == b"x"]) == 1


def test_lists_come_in_pages(fake: FakeRegistry) -> None:
    registry = client(fake)
    tags = {f"t{number}" for number in range(5)}
    images.image(registry, PATH, *tags)
    for number in range(3):
        images.image(registry, f"local/1/{number}/x", "a")
    assert set(registry.tags(PATH)) == tags
    assert set(registry.repositories()) == {PATH, *(f"local/1/{number}/x" for number in range(3))}


def test_a_digest_is_deleted_with_all_its_tags_and_gone_is_fine(fake: FakeRegistry) -> None:
    registry = client(fake)
    digest = images.image(registry, PATH, "a", "b", created="2026")
    images.image(registry, PATH, "c")
    registry.delete(PATH, digest)
    registry.delete(PATH, digest)
    assert list(registry.tags(PATH)) == ["c"]
    with pytest.raises(Upstream, match="DIGEST_INVALID"):
        registry.delete(PATH, "c")


def test_what_is_not_there_is_none_or_missing(fake: FakeRegistry) -> None:
    registry = client(fake)
    assert registry.digest("no/thing", "a") is None
    assert registry.manifest("no/thing", "a") is None
    assert list(registry.tags("no/thing")) == []
    with pytest.raises(Missing):
        registry.blob("no/thing", f"sha256:{'0' * 64}")


def test_a_registry_that_lost_its_tokens_gets_a_new_login(fake: FakeRegistry) -> None:
    registry = client(fake)
    images.image(registry, PATH, "a")
    fake.tokens.clear()
    assert registry.digest(PATH, "a")


@pytest.mark.parametrize("auth", ["basic", "bearer"])
@pytest.mark.parametrize("login", [None, ("ci", "wrong")])
def test_a_wrong_login_says_so(auth: str, login: tuple[str, str] | None) -> None:
    server = FakeRegistry(auth)
    with running(server), pytest.raises(Misconfigured, match="registry-secret"):
        Registry(server.url, login).ping()


def test_a_blob_is_what_its_name_says_and_not_too_large(fake: FakeRegistry) -> None:
    registry = client(fake)
    digest = registry.put_blob(PATH, b"0123456789")
    assert registry.blob(PATH, digest, limit=10) == b"0123456789"
    with pytest.raises(Upstream, match="larger than 9"):
        registry.blob(PATH, digest, limit=9)
    fake.stores[PATH].blobs[digest] = b"other"
    with pytest.raises(Upstream, match="damaged"):
        registry.blob(PATH, digest)
    with pytest.raises(Upstream, match="names a blob"):
        registry.blob(PATH, "../../x")


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ((200, b"{"), Upstream),
        ((200, b'{"tags": ["\xff"]}'), Upstream),
        ((200, b'{"tags": [1]}'), Upstream),
        ((200, b'{"tags": ["a"]}', {"Link": f'</v2/{PATH}/tags/list?n=1000>; rel="next"'}), Upstream),
        ((500, b"x"), Unavailable),
        ((403, b"{}"), Misconfigured),
        ((405, b"{}"), Upstream),
    ],
)
def test_an_odd_answer_is_an_error(answer: Answer, kind: type[CloudError]) -> None:
    server = FakeRegistry()
    server.overrides.append(lambda method, path: answer)
    with running(server), pytest.raises(kind):
        list(Registry(server.url).tags(PATH))


def test_an_answer_without_digest_is_an_error() -> None:
    server = FakeRegistry()
    server.overrides.append(lambda method, path: (200, b"{}"))
    with running(server):
        for call in (Registry(server.url).digest, Registry(server.url).manifest):
            with pytest.raises(Upstream, match="Docker-Content-Digest"):
                call(PATH, "a")


def test_a_registry_that_dies_within_a_blob_is_unavailable() -> None:
    def serve(at: socket.socket) -> None:
        connection, _ = at.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nabc")

    with socket.create_server(("127.0.0.1", 0)) as at:
        threading.Thread(target=serve, args=(at,)).start()
        with pytest.raises(Unavailable):
            Registry(f"http://127.0.0.1:{at.getsockname()[1]}").blob("a/b", "sha256:" + "0" * 64)


def test_no_registry_is_unavailable() -> None:
    server = FakeRegistry()
    server.http.server_close()
    with pytest.raises(Unavailable, match="connection refused"):
        Registry(server.url).ping()


def test_the_fake_wants_the_media_types_as_the_real_one_does() -> None:
    server = FakeRegistry()
    with running(server):
        images.image(Registry(server.url), PATH, "a")
        assert requests.get(f"{server.url}/v2/{PATH}/manifests/a", timeout=5).status_code == 404


def test_logins_are_those_of_a_docker_config() -> None:
    auth = base64.b64encode(":".join(LOGIN).encode()).decode()
    rows = {
        "auths": {
            "registry:5000": {"auth": auth},
            "https://index.docker.io/v1/": {"username": "hub", "password": "p"},
        },
        "credsStore": "ignored",
    }
    credentials = Credentials.read(json.dumps(rows).encode())
    assert credentials.login("registry:5000") == LOGIN
    assert credentials.login("docker.io") == ("hub", "p")
    assert credentials.login("registry") is None
    assert "cret" not in repr(credentials)
