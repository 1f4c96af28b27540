"""The retention command against a registry and a gateway that enforce their protocols."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from registry.retention import main
from sdk.registry import Registry
from sdk.specs import LAST_READY, SPEC, pack
from tests import images

from .fake_registry import LOGIN, FakeRegistry
from .fakes import Answer, FakeGateway, running

PATH = "local/12/34/hello"
OLD = 1_700_000_000


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeRegistry]:
    server = FakeRegistry()
    monkeypatch.setenv("registry_api_url", server.url)
    with running(server):
        yield server


@pytest.fixture
def registry(fake: FakeRegistry, gateway: FakeGateway) -> Registry:
    gateway.functions["platform"] = {"image": "registry:5000/openfaas-cloud/gh-push:latest"}
    return Registry(fake.url)


def retention(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def push(registry: Registry, number: int, path: str = PATH) -> str:
    """An old image; the larger the number, the newer."""
    return images.image(registry, path, f"sha{number}", f"ctx-{number}", created=images.at(OLD + number))


def deploy(gateway: FakeGateway, image: str, name: str = "hello", **rows: object) -> None:
    gateway.functions[name] = {"image": image, **rows}


def test_a_dry_run_is_the_default_and_tells_what_would_go(
    registry: Registry, fake: FakeRegistry, gateway: FakeGateway
) -> None:
    old, new = push(registry, 1), push(registry, 2)
    result = retention("--keep", "1")
    assert result.exit_code == 0
    assert f"{PATH}  {old[:19]}  2023-11-14 22:13     0.5 kB  ctx-1, sha1" in result.output
    assert "dry run, --delete would delete: 1 of 2 manifests" in result.output
    assert set(fake.stores[PATH].manifests) == {old, new}
    assert not fake.made("DELETE", "/")


def test_the_mode_is_also_a_setting_that_an_option_overrides(
    registry: Registry, fake: FakeRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = push(registry, 1), push(registry, 2)
    monkeypatch.setenv("retention", "delete")
    monkeypatch.setenv("keep", "1")
    assert retention("--dry-run").exit_code == 0
    assert set(fake.stores[PATH].manifests) == {old, new}
    result = retention()
    assert "deleted: 1 of 2 manifests" in result.output
    assert set(fake.stores[PATH].manifests) == {new}


@pytest.mark.parametrize(
    "image",
    [
        "127.0.0.1:5000/{path}:sha0@{digest}",
        "registry.example.com/{path}@{digest}",
        "proxy.example.com/mirror/{path}:sha0",
        "{path}:ctx-0",
    ],
)
def test_what_runs_stays_whatever_its_registry_is_called(
    registry: Registry, fake: FakeRegistry, gateway: FakeGateway, image: str
) -> None:
    digests = [push(registry, number) for number in range(4)]
    deploy(gateway, image.format(path=PATH, digest=digests[0]))
    assert retention("--delete", "--keep", "1").exit_code == 0
    assert set(fake.stores[PATH].manifests) == {digests[0], digests[3]}


def test_what_a_rollback_takes_stays(registry: Registry, fake: FakeRegistry, gateway: FakeGateway) -> None:
    digests = [push(registry, number) for number in range(5)]
    packed = {
        name: pack({"image": f"r/{PATH}@{digests[number]}"}) for number, name in enumerate((SPEC, LAST_READY))
    }
    deploy(gateway, f"r/{PATH}@{digests[2]}", annotations=packed)
    assert retention("--delete", "--keep", "1").exit_code == 0
    assert set(fake.stores[PATH].manifests) == {*digests[:3], digests[4]}


def test_all_namespaces_count(registry: Registry, fake: FakeRegistry, gateway: FakeGateway) -> None:
    digests = [push(registry, number) for number in range(4)]
    gateway.namespaces = ["openfaas-fn", "other"]
    deploy(gateway, f"r/{PATH}@{digests[0]}", namespace="other")
    deploy(gateway, f"r/{PATH}@{digests[1]}", "second", namespace="openfaas-fn")
    assert retention("--delete", "--keep", "1").exit_code == 0
    assert set(fake.stores[PATH].manifests) == {digests[0], digests[1], digests[3]}


def test_namespaces_can_be_given(registry: Registry, fake: FakeRegistry, gateway: FakeGateway) -> None:
    digests = [push(registry, number) for number in range(3)]
    gateway.overrides.append(
        lambda method, path, body: (500, b"no") if path == "/system/namespaces" else None
    )
    deploy(gateway, f"r/{PATH}@{digests[0]}", namespace="other")
    result = retention("--delete", "--keep", "1")
    assert result.exit_code == 1
    assert "set `namespaces`" in result.output
    assert retention("--delete", "--keep", "1", "--namespaces", "other").exit_code == 0
    assert set(fake.stores[PATH].manifests) == {digests[0], digests[2]}


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((500, b"broken"), "broken"),
        ((503, b""), "503"),
        ((401, b""), "same secrets"),
        ((200, b"[]"), "not one function"),
        ((200, b"null"), "can't be read"),
        ((200, b'[{"name": "\xff"}]'), "can't be read"),
        ((200, b'[{"name": "x", "image": "No Image"}]'), "is no name of an image"),
        ((200, json.dumps([{"name": "x", "image": "a/b", "annotations": {SPEC: "x"}}]).encode()), SPEC),
    ],
)
def test_without_a_sound_gateway_nothing_is_deleted(
    registry: Registry, fake: FakeRegistry, gateway: FakeGateway, answer: Answer, said: str
) -> None:
    for number in range(3):
        push(registry, number)
    # The first answer may be as it should, or the second.
    for sound in (0, 1):
        seen: list[str] = []

        def override(
            method: str, path: str, body: bytes, sound: int = sound, seen: list[str] = seen
        ) -> Answer | None:
            seen.append(path)
            return answer if path == "/system/functions" and seen.count(path) > sound else None

        gateway.overrides[:] = [override]
        result = retention("--delete", "--keep", "1")
        assert result.exit_code == 1
        assert "nothing (more) is deleted" in result.output
        assert said in result.output
        assert len(fake.stores[PATH].manifests) == 3


def test_without_a_gateway_or_its_login_nothing_is_deleted(
    registry: Registry, gateway: FakeGateway, monkeypatch: pytest.MonkeyPatch, secret_folder: Path
) -> None:
    monkeypatch.setenv("retention", "sometimes")
    assert "is none of delete, dry-run, off" in retention("--keep", "1").output
    (secret_folder / "basic-auth-user").unlink()
    assert "basic-auth-user is missing" in retention("--delete").output
    monkeypatch.setenv("gateway_url", "")
    assert "gateway_url is missing" in retention("--delete").output
    result = retention("--delete", "--keep", "some")
    assert (result.exit_code, "setting keep: 'some' is not a whole number" in result.output) == (1, True)


def test_what_is_deployed_while_it_reads_stays(
    registry: Registry, fake: FakeRegistry, gateway: FakeGateway
) -> None:
    digests = [push(registry, number) for number in range(3)]

    def deployed(method: str, path: str) -> None:
        if path.endswith("/tags/list"):
            deploy(gateway, f"r/{PATH}@{digests[0]}")

    fake.overrides.append(deployed)
    assert retention("--delete", "--keep", "1").exit_code == 0
    assert set(fake.stores[PATH].manifests) == {digests[0], digests[2]}


def test_a_repository_that_is_pushed_to_waits(
    registry: Registry, fake: FakeRegistry, gateway: FakeGateway
) -> None:
    digests = [push(registry, number) for number in range(3)]
    seen = []

    def tagged(method: str, path: str) -> None:
        seen.append(path)
        if seen.count(f"/v2/{PATH}/tags/list") == 3:  # two pages are read first
            fake.stores[PATH].tags["again"] = digests[0]

    fake.overrides.append(tagged)
    result = retention("--delete", "--keep", "1")
    assert result.exit_code == 0
    assert f"{PATH}: something is being pushed" in result.output
    assert len(fake.stores[PATH].manifests) == 3


def test_an_unreadable_repository_stays_and_others_do_not_wait_for_it(
    registry: Registry, fake: FakeRegistry, gateway: FakeGateway
) -> None:
    for number in range(3):
        push(registry, number)
        for path in ("a/blob", "a/kind", "a/manifest", "a/tag"):
            push(registry, number, path)
    fake.stores["a/blob"].blobs.clear()
    for digest, (_, content) in fake.stores["a/manifest"].manifests.items():
        fake.stores["a/manifest"].manifests[digest] = (
            images.IMAGE,
            content.replace(b'"layers"', b'"layers":3,"x"'),
        )
    kind = images.manifest({"mediaType": "application/vnd.docker.distribution.manifest.v1+prettyjws"})
    fake.overrides.append(
        lambda method, path: (
            (200, kind.content, {"Content-Type": kind.media_type, "Docker-Content-Digest": kind.digest})
            if path.startswith("/v2/a/kind/manifests/")
            else None
        )
    )
    fake.stores["a/tag"].tags["lost"] = f"sha256:{'0' * 64}"
    result = retention("--delete", "--keep", "1")
    assert result.exit_code == 0
    assert result.output.count("is not understood, so all of it stays") == 4
    assert {path: len(store.manifests) for path, store in fake.stores.items()} == {
        **dict.fromkeys(("a/blob", "a/kind", "a/manifest", "a/tag"), 3),
        PATH: 1,
    }


def test_a_registry_that_refuses_deletes_is_told(
    registry: Registry, fake: FakeRegistry, gateway: FakeGateway
) -> None:
    for number in range(3):
        push(registry, number)
    fake.deletes = False
    result = retention("--delete", "--keep", "1")
    assert result.exit_code == 1
    assert "UNSUPPORTED" in result.output


def test_the_login_is_the_secrets(gateway: FakeGateway, secret_folder: Path) -> None:
    server = FakeRegistry("bearer")
    with running(server):
        registry = Registry(server.url, LOGIN)
        digests = [push(registry, number) for number in range(2)]
        deploy(gateway, "x/y")
        command = ("--registry", server.url, "--delete", "--keep", "1")
        server.tokens.clear()
        assert "registry-secret" in retention(*command).output
        login = {"auths": {server.url: {"username": LOGIN[0], "password": LOGIN[1]}}}
        (secret_folder / "registry-secret").write_text(json.dumps(login, indent=2))
        assert retention(*command).exit_code == 0
        assert set(server.stores[PATH].manifests) == {digests[1]}


def test_the_young_logs_caches_and_indexes(
    registry: Registry, fake: FakeRegistry, gateway: FakeGateway
) -> None:
    """Each kind in one repository; all that stays is named."""
    old = [push(registry, number) for number in range(3)]
    logs = [
        images.log(registry, PATH, f"log-sha{n}", f"log-ctx-{n}", created=images.at(OLD + n), text=b"%d" % n)
        for n in range(3)
    ]
    failed = images.log(registry, PATH, "log-ctx-9", created=images.at(OLD - 9), text=b"failed")
    cache = images.cache(registry, PATH, "cache")
    children = {
        name: images.image(registry, PATH, created=images.at(OLD + 5 + n), layer=name.encode())
        for n, name in enumerate(("amd64", "arm64"))
    }
    index = images.index(registry, PATH, children, "multi")
    gone_children = {"amd64": images.image(registry, PATH, created=images.at(OLD - 5), layer=b"gone")}
    gone = images.index(registry, PATH, {**gone_children, "arm64": children["arm64"]}, "multi-old")
    young = images.image(registry, PATH, "young", label="2098-01-01T00:00:00Z", created=images.at(OLD))
    undated = images.image(registry, PATH, "undated", created="1970-01-01T00:00:00Z")
    deploy(gateway, f"r/{PATH}@{old[0]}")
    result = retention("--delete", "--keep", "2")
    assert result.exit_code == 0
    stays = {old[0], logs[0], logs[1], logs[2], cache, index, *children.values(), young, undated}
    assert set(fake.stores[PATH].manifests) == stays
    assert "1 stay because nothing tells their age" in result.output
    assert not {old[1], old[2], failed, gone, *gone_children.values()} & stays


def test_the_storage_tells_what_has_no_tag_and_since_when(
    registry: Registry, fake: FakeRegistry, gateway: FakeGateway, tmp_path: Path
) -> None:
    import os

    old = [push(registry, number) for number in range(3)]
    untagged, fresh = (
        images.image(registry, PATH, created=images.at(OLD), layer=layer) for layer in (b"untagged", b"fresh")
    )
    revisions = tmp_path / "docker/registry/v2/repositories" / PATH / "_manifests/revisions/sha256"
    for digest in (*old, untagged, fresh, f"sha256:{'0' * 64}"):
        link = revisions / digest.removeprefix("sha256:") / "link"
        link.parent.mkdir(parents=True)
        link.write_text(digest)
        if digest not in (old[1], fresh):  # these were pushed just now
            os.utime(link, (OLD, OLD))
    result = retention("--delete", "--keep", "1", "--storage", str(tmp_path))
    assert result.exit_code == 0
    assert "(no tag)" in result.output
    assert set(fake.stores[PATH].manifests) == {old[1], old[2], fresh}
