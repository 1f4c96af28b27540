"""of-builder's unpacking: what is no context is refused, and nothing escapes."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import io
import json
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nacl.public import PrivateKey

from of_builder import tarball
from of_builder.callers import Caller
from of_builder.sealed import Key
from of_builder.tarball import Job
from sdk import signature
from sdk.errors import CloudError, Malformed, TooLarge, Unauthorized
from sdk.secrets import Keys
from tests.conftest import DATA

KEYS = Keys("builder-secret", (b"builder",))
KEY = Key(PrivateKey.generate())
CONFIG = json.dumps({"image": "registry:5000/github/1/2/f:sha", "buildArgs": {"A": "1"}}).encode()
DOCKERFILE = ("context/Dockerfile", b"FROM scratch\n")


def made(*entries: tuple[str, bytes] | tarfile.TarInfo, config: bytes | None = CONFIG) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        rows = [*entries, *([("com.openfaas.docker.config", config)] if config is not None else [])]
        for row in rows:
            info, content = (
                (row, b"") if isinstance(row, tarfile.TarInfo) else (tarfile.TarInfo(row[0]), row[1])
            )
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def unpacked(data: bytes, folder: Path, entries: int = 100, size: int = 10**6) -> Job:
    (folder / "request.tar").write_bytes(data)
    return tarball.unpack(folder / "request.tar", folder, KEY, entries_limit=entries, bytes_limit=size)


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def test_a_tar_becomes_a_context_and_its_config(tmp_path: Path) -> None:
    run = tarfile.TarInfo("context/bin")
    run.type = tarfile.DIRTYPE
    job = unpacked(made(DOCKERFILE, run, ("context/bin/x", b"x")), tmp_path)
    assert (job.context / "bin" / "x").read_bytes() == b"x"
    assert str(job.image) == "registry:5000/github/1/2/f:sha"
    assert (job.owner, job.secrets, job.origin) == ("github/1", {}, {})
    assert job.config.build_args == {"A": "1"}


def test_faas_clis_recorded_request_is_understood(tmp_path: Path) -> None:
    job = unpacked((DATA / "faas-cli" / "request-publish.tar").read_bytes(), tmp_path)
    assert str(job.image) == "registry.example/acme/hello:0.1.0"
    assert job.config.platforms == ["linux/amd64"]
    assert (job.context / "Dockerfile").is_file()


def test_the_original_clouds_ref_is_understood_and_no_tag_is_latest(tmp_path: Path) -> None:
    job = unpacked(made(DOCKERFILE, config=b'{"ref": "registry:5000/a/b"}'), tmp_path)
    assert str(job.image) == "registry:5000/a/b:latest"


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "context/../../x", "../x", "context/..", "", ".", "context/" + "x" * 2000]
)
def test_an_entry_that_would_leave_the_context_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(Malformed):
        unpacked(made(DOCKERFILE, (name, b"evil")), tmp_path)
    assert not (tmp_path.parent / "x").exists()


@pytest.mark.parametrize(
    "info",
    [
        special("context/hard", tarfile.LNKTYPE, "request.tar"),
        special("context/null", tarfile.CHRTYPE),
        special("context/pipe", tarfile.FIFOTYPE),
    ],
    ids=["hard link", "device", "fifo"],
)
def test_hard_links_and_devices_are_refused(info: tarfile.TarInfo, tmp_path: Path) -> None:
    with pytest.raises(Malformed, match="neither a file nor a folder"):
        unpacked(made(DOCKERFILE, info), tmp_path)


def test_a_name_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Malformed, match="twice"):
        unpacked(made(DOCKERFILE, ("context/a", b"1"), ("context/./a", b"2")), tmp_path)


def test_a_file_where_a_folder_is_needed_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Malformed):
        unpacked(made(DOCKERFILE, ("context/a", b"1"), ("context/a/b", b"2")), tmp_path)


def test_a_name_that_no_file_can_have_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Malformed):
        unpacked(made(DOCKERFILE, ("context/" + "a" * 300, b"1")), tmp_path)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.EROFS])
def test_trouble_with_our_disk_is_not_the_tars(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def trouble(*args: object) -> None:
        raise OSError(number, "trouble")

    monkeypatch.setattr(tarball, "_unpack_entry", trouble)
    with pytest.raises(OSError, match="trouble"):
        unpacked(made(DOCKERFILE), tmp_path)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "can't be unpacked"),
        (b"not a tar", "can't be unpacked"),
        (made(DOCKERFILE, config=None), "no com.openfaas.docker.config"),
        (made(), "no Dockerfile"),
        (made(DOCKERFILE, config=b"{"), "com.openfaas.docker.config"),
        (made(DOCKERFILE, config=b'{"buildArgs": {}}'), "image is missing"),
        (made(DOCKERFILE, config=b'{"image": 5}'), "com.openfaas.docker.config"),
        (made(DOCKERFILE, config=b'{"image": "%s"}' % (b"a" * 2000)), "no name of an image"),
        (made(DOCKERFILE, config=b'{"image": "a", "buildArgs": {"A": 1}}'), "com.openfaas.docker.config"),
        (made(DOCKERFILE, config=b" " * 300_000), "com.openfaas.docker.config"),
    ],
)
def test_what_is_no_request_is_malformed(data: bytes, said: str, tmp_path: Path) -> None:
    with pytest.raises(Malformed, match=said):
        unpacked(data, tmp_path)


def test_entries_and_bytes_are_limited(tmp_path: Path) -> None:
    with pytest.raises(TooLarge):
        unpacked(made(DOCKERFILE, *((f"context/{n}", b"") for n in range(10))), tmp_path, entries=5)
    (tmp_path / "two").mkdir()
    with pytest.raises(TooLarge):
        unpacked(made(DOCKERFILE, ("context/big", bytes(5_000))), tmp_path / "two", size=4_000)


def test_a_tar_whose_headers_promise_more_than_there_is_is_malformed(tmp_path: Path) -> None:
    with pytest.raises((Malformed, TooLarge)):
        unpacked(made(DOCKERFILE, ("context/a", bytes(2_000)))[:2_600], tmp_path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.text(), st.binary(max_size=30)), max_size=4), st.binary(max_size=60))
def test_whatever_the_names_and_config_nothing_leaves_the_folder(
    tmp_path_factory: pytest.TempPathFactory, entries: list[tuple[str, bytes]], config: bytes
) -> None:
    outer = tmp_path_factory.mktemp("outer")
    inner = outer / "inner"
    inner.mkdir()
    try:
        data = made(DOCKERFILE, *((f"context/{name}", content) for name, content in entries), config=config)
    except (ValueError, UnicodeError):
        return
    with contextlib.suppress(CloudError):
        unpacked(data, inner)
    assert [path.name for path in outer.iterdir()] == ["inner"]


def test_the_body_is_verified_as_it_arrives_and_limited(tmp_path: Path) -> None:
    async def body() -> AsyncIterator[bytes]:
        for piece in (b"one", b"two"):
            yield piece

    async def receive(name: str, header: str | None, limit: int = 100) -> None:
        callers = {Caller(KEYS): signature.Running(KEYS)}
        await tarball.receive(body(), tmp_path / name, header, callers, limit)

    good = signature.sign(b"onetwo", KEYS)
    asyncio.run(receive("a", good))
    assert (tmp_path / "a").read_bytes() == b"onetwo"
    for header in (None, "sha256=0", signature.sign(b"onetwo", Keys("k", (b"other",)))):
        with pytest.raises(Unauthorized):
            asyncio.run(receive(f"b{header}".replace("/", ""), header))
    with pytest.raises(TooLarge):
        asyncio.run(receive("c", good, limit=4))


@pytest.mark.parametrize(
    "config",
    [
        {"image": "r/a:1", "buildArgs": {"A": "x\0"}},
        {"image": "r/a:1", "buildArgs": {"A\0": "x"}},
        {"image": "r/a:1", "buildArgs": {"A": "x" * 70_000}},
    ],
)
def test_what_no_program_can_be_started_with_is_malformed(config: dict[str, object], tmp_path: Path) -> None:
    with pytest.raises(Malformed, match="a NUL, or of more than 65536 bytes"):
        unpacked(made(DOCKERFILE, config=json.dumps(config).encode()), tmp_path)


@pytest.mark.parametrize(
    "name",
    [
        "HTTP_PROXY",
        "https_proxy",
        "No_Proxy",
        "BUILDKIT_SYNTAX",
        "BUILDKIT_CACHE_MOUNT_NS",
        "SOURCE_DATE_EPOCH",
    ],
)
def test_build_args_that_change_a_build_unseen_are_refused(name: str, tmp_path: Path) -> None:
    config = json.dumps({"image": "r/a:1", "buildArgs": {name: "x"}}).encode()
    with pytest.raises(Malformed, match="not yours to set"):
        unpacked(made(DOCKERFILE, config=config), tmp_path)


@pytest.mark.parametrize(
    "platforms",
    [["linux/amd64,linux/arm64"], ["--push"], ["linux"], [""], ["linux/amd64"] * 9, "linux/amd64"],
)
def test_platforms_are_platforms(platforms: object, tmp_path: Path) -> None:
    config = json.dumps({"image": "r/a:1", "platforms": platforms}).encode()
    with pytest.raises(Malformed, match="openfaas"):
        unpacked(made(DOCKERFILE, config=config), tmp_path)


def test_keys_of_the_config_are_read_in_any_case_as_go_does(tmp_path: Path) -> None:
    config = b'{"Ref": "r/a/b:1", "buildargs": {"A": "1"}, "SkipPush": true, "platforms": null}'
    job = unpacked(made(DOCKERFILE, config=config), tmp_path)
    assert (str(job.image), job.config.build_args, job.config.skip_push) == (
        "docker.io/r/a/b:1",
        {"A": "1"},
        True,
    )


@pytest.mark.parametrize(
    "image", ["registry:5000/a:0.1-feature/a_b", "a b", "r/a:1,push=false", "A", "r/a@sha256:1"]
)
def test_an_image_is_a_name_and_a_tag(image: str, tmp_path: Path) -> None:
    with pytest.raises(Malformed, match="name of an image"):
        unpacked(made(DOCKERFILE, config=json.dumps({"image": image}).encode()), tmp_path)


@pytest.mark.parametrize(
    ("image", "owner"),
    [
        ("registry:5000/github/12/34/hello:1", "github/12"),
        ("registry:5000/openfaas-cloud/git-tar:1", "openfaas-cloud"),
        ("registry:5000/hello:1", "hello"),
        ("acme/hello", "acme"),
    ],
)
def test_the_owner_is_in_the_images_path(image: str, owner: str, tmp_path: Path) -> None:
    assert unpacked(made(DOCKERFILE, config=json.dumps({"image": image}).encode()), tmp_path).owner == owner


def test_links_within_the_context_are_kept_and_count(tmp_path: Path) -> None:
    links = [
        special("context/bin/run", tarfile.SYMTYPE, "../src/run.sh"),
        special("context/x", tarfile.SYMTYPE, "bin"),
    ]
    entries = (DOCKERFILE, ("context/src/run.sh", b"run"))
    (tmp_path / "with").mkdir()
    (tmp_path / "without").mkdir()
    job = unpacked(made(*entries, *links), tmp_path / "with")
    assert (job.context / "x" / "run").read_bytes() == b"run"
    assert job.digest != unpacked(made(*entries), tmp_path / "without").digest


@pytest.mark.parametrize(
    "links",
    [
        {"leak": "/etc/passwd"},
        {"leak": ".."},
        {"leak": "../request.tar"},
        {"a/leak": "../../request.tar"},
        {"leak": "a/../../request.tar"},
        {"leak": ""},
        {"p/q/r": "../..", "p/q/r/x": "../../../etc"},
        {"p/l": ".", "p/leak": "l/../../request.tar"},
        {"Dockerfile2": "x", "a": "Dockerfile2/..", "b": "a/../.."},
    ],
)
def test_a_link_out_of_the_context_is_refused(links: dict[str, str], tmp_path: Path) -> None:
    rows = [special(f"context/{name}", tarfile.SYMTYPE, target) for name, target in links.items()]
    with pytest.raises(Malformed, match="leaves the context"):
        unpacked(made(DOCKERFILE, *rows), tmp_path)


def test_the_dockerfile_itself_is_no_link(tmp_path: Path) -> None:
    link = special("context/Dockerfile", tarfile.SYMTYPE, "other")
    with pytest.raises(Malformed, match="no Dockerfile"):
        unpacked(made(link, ("context/other", b"FROM scratch\n")), tmp_path)


_PARTS = st.sampled_from(["a", "b", "c", "..", "."])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
@given(
    st.dictionaries(
        st.lists(st.sampled_from("abc"), min_size=1, max_size=3).map("/".join),
        st.lists(_PARTS, min_size=1, max_size=5).map("/".join),
        max_size=5,
    )
)
def test_no_set_of_links_leads_out_of_the_context(
    tmp_path_factory: pytest.TempPathFactory, links: dict[str, str]
) -> None:
    folder = tmp_path_factory.mktemp("links")
    rows = [special(f"context/{name}", tarfile.SYMTYPE, target) for name, target in links.items()]
    with contextlib.suppress(CloudError):
        context = unpacked(made(DOCKERFILE, *rows), folder).context.resolve()
        for link in context.rglob("*"):
            with contextlib.suppress(RuntimeError, OSError):  # a loop leads nowhere
                assert link.resolve().is_relative_to(context)


def test_the_clouds_description_becomes_labels(tmp_path: Path) -> None:
    told = {"sha": "a" * 40, "repository": {"html_url": "https://github.com/acme/x", "id": 1}, "function": {}}
    job = unpacked(made(DOCKERFILE, ("com.openfaas.cloud.json", json.dumps(told).encode())), tmp_path)
    assert job.origin == {
        "org.opencontainers.image.source": "https://github.com/acme/x",
        "org.opencontainers.image.revision": "a" * 40,
    }


def headers(kind: bytes, size: int, content: bytes = b"", times: int = 1) -> bytes:
    info = special("x", kind)
    info.size = size
    padding = b"\0" * (-len(content) % 512)
    return (info.tobuf(tarfile.GNU_FORMAT) + content + padding) * times + made(DOCKERFILE)


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME])
def test_headers_that_are_read_as_a_whole_are_small(kind: bytes, tmp_path: Path) -> None:
    with pytest.raises(Malformed, match="a header of 100000 bytes"):
        unpacked(headers(kind, 100_000, b"a" * 100_000), tmp_path)


def test_a_header_has_no_size_below_nothing(tmp_path: Path) -> None:
    with pytest.raises(Malformed, match="a header of -512 bytes"):
        unpacked(headers(tarfile.REGTYPE, -512), tmp_path)


def test_headers_upon_headers_are_malformed(tmp_path: Path) -> None:
    with pytest.raises(Malformed):
        unpacked(headers(tarfile.GNUTYPE_LONGNAME, 512, b"a" * 512, times=2000), tmp_path)


def test_the_folders_that_names_imply_are_entries_too(tmp_path: Path) -> None:
    deep = [(f"context/{number}{'/a' * 50}", b"") for number in range(3)]
    with pytest.raises(TooLarge, match="more than 100 entries"):
        unpacked(made(*deep, DOCKERFILE), tmp_path)


@pytest.mark.parametrize("tag", ["ctx-" + "1" * 64, "log-1", "cache"])
def test_the_builders_own_tags_are_nobodys_to_push(tag: str, tmp_path: Path) -> None:
    config = json.dumps({"image": f"r.example/a:{tag}"}).encode()
    with pytest.raises(Malformed, match="of-builder's own"):
        unpacked(made(DOCKERFILE, config=config), tmp_path)


def test_a_functions_values_are_known_so_that_no_log_shows_them(tmp_path: Path) -> None:
    values = {"build_args": {"TOKEN": "hunter2hunter2"}, "environment": {"A": "true", "B": "one line\nx"}}
    cloud = json.dumps({"sha": "a" * 40, "function": {"name": "f", **values}}).encode()
    job = unpacked(made(("com.openfaas.cloud.json", cloud), DOCKERFILE), tmp_path)
    assert set(job.hidden) == {"hunter2hunter2", "one line"}
    assert "hunter2" not in repr(job)
