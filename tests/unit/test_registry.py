"""What the registry keeps, and how its care is run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from registry import serve
from registry.plan import CACHE, LOG, Found, plan
from registry.settings import Settings
from sdk.errors import Malformed, Misconfigured
from sdk.registry import Credentials, Reference
from tests.conftest import ROOT

DIGESTS = [f"sha256:{number}" for number in range(12)]
IMAGE_TAGS = ["latest", "a1", "b2", "ctx-a", "ctx-b"]
TAGS = [*IMAGE_TAGS, CACHE, *(LOG + tag for tag in IMAGE_TAGS)]


@st.composite
def repositories(draw: st.DrawFn) -> tuple[Found, ...]:
    """Manifests with dates or not; each tag has one; indexes in indexes, children that are not there."""
    there = draw(st.lists(st.sampled_from(DIGESTS), unique=True))
    dates = st.none() | st.integers(0, 20)
    owners = (
        {tag: draw(st.sampled_from(there)) for tag in draw(st.sets(st.sampled_from(TAGS)))} if there else {}
    )
    return tuple(
        Found(
            digest,
            created=draw(dates),
            pushed=draw(dates),
            tags=tuple(tag for tag, owner in owners.items() if owner == digest),
            # A manifest names its children by digest, so there are no circles.
            children=tuple(
                draw(st.sets(st.sampled_from(DIGESTS[:number]), max_size=3)) if number > 6 else ()
            ),
        )
        for digest in there
        for number in [DIGESTS.index(digest)]
    )


def family(digest: str, by: dict[str, Found]) -> Iterator[str]:
    yield digest
    for child in by[digest].children if digest in by else ():
        yield from family(child, by)


@given(repositories(), st.sets(st.sampled_from(DIGESTS), max_size=4), st.integers(0, 5), st.integers(0, 20))
def test_what_is_needed_is_never_deleted(
    found: tuple[Found, ...], running: set[str], keep: int, since: int
) -> None:
    going = plan(found, running=running, keep=keep, since=since)
    gone, by = {one.digest for one in going}, {one.digest: one for one in found}
    assert len(going) == len(gone)
    assert gone <= set(by)
    assert not gone & running
    for one in found:
        if one.digest not in gone:
            assert not gone & set(family(one.digest, by)), "children of what stays"
        else:
            assert one.created is not None or one.pushed is not None, "of unknown age"
            assert max(at for at in (one.created, one.pushed) if at is not None) <= since, "young"
    for kind in ("is_image", "logs_of"):
        newer = [one for one in found if getattr(one, kind) and one.date is not None]
        for one in (one for one in newer if one.digest in gone):
            assert sum((other.date or 0) >= (one.date or 0) for other in newer if other != one) >= keep, (
                "newest"
            )
    staying = {tag for one in found if one.digest not in gone and one.is_image for tag in one.tags}
    for one in found:
        if one.logs_of & staying or (CACHE in one.tags and staying):
            assert one.digest not in gone, "its image stays"


def test_equal_dates_delete_an_index_before_its_children() -> None:
    child, index = Found("sha256:a", 1), Found("sha256:b", 1, tags=("x",), children=("sha256:a",))
    assert plan((child, index), running=(), keep=0, since=5) == (index, child)


def test_the_rules_one_by_one() -> None:
    found = (
        Found("old", 1, tags=("a", "ctx-a")),
        Found("mid", 2, tags=("b", "ctx-b")),
        Found("new", 3, tags=("c", "latest")),
        Found("log-old", 1, tags=("log-a", "log-ctx-a")),
        Found("log-new", 4, tags=("log-failed",)),
        Found("cache", 1, tags=("cache",)),
        Found("untagged", 1),
    )

    def gone(**given_: object) -> list[str]:
        rules = {"running": (), "keep": 1, "since": 10.0, **given_}
        return [one.digest for one in plan(found, **rules)]  # type: ignore[arg-type]

    assert gone() == ["log-old", "old", "untagged", "mid"]
    assert gone(running=("old",)) == ["untagged", "mid"], "with its log"
    assert gone(running=("untagged",)) == ["log-old", "old", "mid"]
    assert gone(keep=2) == ["old", "untagged"], "two logs stay"
    assert gone(since=1.5) == ["log-old", "old", "untagged"]
    assert gone(keep=0) == ["cache", "log-old", "old", "untagged", "mid", "new", "log-new"]


@example(b'{"auths": {"a": {"auth": "/w=="}}}')
@example(b'{"auths": {"http://[": {}}}')
@example(b'{"auths": {"\xff": {}}}')
@example(b"[" * 100_000)
@given(
    st.binary()
    | st.builds(
        lambda auth, host: f'{{"auths": {{"{host}": {{"auth": "{auth}"}}}}}}'.encode(), st.text(), st.text()
    )
)
def test_odd_bytes_are_no_docker_config(content: bytes) -> None:
    with suppress(Misconfigured):
        Credentials.read(content)


@given(st.text())
def test_any_text_is_an_image_or_malformed(text: str) -> None:
    with suppress(Malformed):
        reference = Reference.parse(text)
        assert Reference.parse(str(reference)) == reference


@pytest.mark.parametrize("name", ["config.yml", "config-cluster.yml"])
def test_what_care_needs_of_a_configuration(name: str) -> None:
    storage = yaml.safe_load((ROOT / "registry" / name).read_text())["storage"]
    assert storage["delete"] == {"enabled": True}
    assert "cache" not in storage, "it believes in layers that the garbage collection took"


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Programs that write down how they are called; returns the file."""
    told = tmp_path / "told"
    for name, line in {"docker-registry": '[ "$1" != serve ] || exec sleep 60', "python": "exit 1"}.items():
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(f'#!/bin/sh\necho "{name} $*" >> {told}\n{line}\n')
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bin" / "python"))
    return told


@pytest.fixture
def signals() -> Iterator[None]:
    """What the registry's program does with signals lasts no longer than a test."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGHUP, signal.SIGTERM)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("signals")
def test_a_cycle_deletes_while_it_serves_and_collects_while_it_does_not(
    programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / serve.REPOSITORIES).mkdir(parents=True)
    settings = Settings(gateway_url="http://gateway:8080", storage=str(tmp_path))
    monkeypatch.setattr(serve, "read", lambda table: settings)
    rounds = iter((signal.SIGHUP, signal.SIGHUP, signal.SIGTERM))

    def wait(asked: serve.Asked, registry: subprocess.Popen[bytes], seconds: float) -> None:
        while "serve" not in programs.read_text().splitlines()[-1]:
            assert registry.poll() is None
        os.kill(os.getpid(), next(rounds))
        original(asked, registry, seconds)

    original = serve.Asked.wait
    monkeypatch.setattr(serve.Asked, "wait", wait)
    with pytest.raises(SystemExit):
        serve.main()
    collect, registry = (f"docker-registry {what} {serve.CONFIG}" for what in ("garbage-collect", "serve"))
    cycle = [collect, registry, "python -m registry.retention"]
    assert programs.read_text().splitlines() == [*cycle, *cycle, collect, registry]


def test_without_a_gateway_or_when_it_is_off_nothing_is_deleted(programs: Path) -> None:
    serve.retain(Settings())
    serve.retain(Settings(gateway_url="http://gateway:8080", retention="off"))
    assert not programs.exists()


@pytest.mark.parametrize(
    ("retention", "told"), [("exit 3", "retention failed with 3"), ("sleep 60", "stopped after 0.2 s")]
)
def test_retention_that_fails_or_hangs_is_told_and_the_registry_serves_on(
    retention: str,
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    program = tmp_path / "python"
    program.write_text(f"#!/bin/sh\nexec sh -c '{retention}'\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    monkeypatch.setattr(serve, "_RETENTION_SECONDS", 0.2)
    serve.retain(Settings(gateway_url="http://gateway:8080"))
    assert told in capsys.readouterr().out


@pytest.mark.usefixtures("signals")
def test_the_programs_end_is_its_own() -> None:
    asked = serve.Asked()
    with subprocess.Popen(("sh", "-c", "exit 7")) as ended, pytest.raises(SystemExit, match="7"):
        asked.wait(ended, 10)


def test_docker_hubs_api_is_elsewhere_than_its_name_says() -> None:
    assert Reference.parse("me/app").api_host == "registry-1.docker.io"
    assert Reference.parse("registry:5000/me/app").api_host == "registry:5000"
