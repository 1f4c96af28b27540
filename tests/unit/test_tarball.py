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

from of_builder import tarball
from of_builder.tarball import Job
from sdk import signature
from sdk.errors import CloudError, Malformed, TooLarge, Unauthorized
from sdk.secrets import Keys
from tests.conftest import DATA

KEYS = Keys("builder-secret", (b"builder",))
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
    return tarball.unpack(folder / "request.tar", folder, entries_limit=entries, bytes_limit=size)


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def test_a_tar_becomes_a_context_and_its_config(tmp_path: Path) -> None:
    run = tarfile.TarInfo("context/bin")
    run.type = tarfile.DIRTYPE
    job = unpacked(made(DOCKERFILE, run, ("context/bin/x", b"x")), tmp_path)
    assert (job.context / "bin" / "x").read_bytes() == b"x"
    assert job.config.reference == "registry:5000/github/1/2/f:sha"
    assert job.config.build_args == {"A": "1"}


def test_faas_clis_recorded_request_is_understood(tmp_path: Path) -> None:
    job = unpacked((DATA / "faas-cli" / "request-publish.tar").read_bytes(), tmp_path)
    assert job.config.reference
    assert (job.context / "Dockerfile").is_file()


def test_the_original_clouds_ref_is_understood_and_no_tag_is_latest(tmp_path: Path) -> None:
    job = unpacked(made(DOCKERFILE, config=b'{"ref": "registry:5000/a/b"}'), tmp_path)
    assert job.config.reference == "registry:5000/a/b:latest"


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
        special("context/leak", tarfile.SYMTYPE, "/etc/passwd"),
        special("context/hard", tarfile.LNKTYPE, "request.tar"),
        special("context/null", tarfile.CHRTYPE),
        special("context/pipe", tarfile.FIFOTYPE),
    ],
    ids=["symlink", "hard link", "device", "fifo"],
)
def test_links_and_devices_are_refused(info: tarfile.TarInfo, tmp_path: Path) -> None:
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
        (made(DOCKERFILE, config=b'{"image": "%s"}' % (b"a" * 2000)), "too long"),
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
        await tarball.receive(body(), tmp_path / name, header, KEYS, limit)

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
        {"image": "r/a\0b:1"},
        {"image": "r/a:1", "buildArgs": {"A": "x\0"}},
        {"image": "r/a:1", "buildArgs": {"A\0": "x"}},
        {"image": "r/a:1", "buildArgs": {"A": "x" * 70_000}},
    ],
)
def test_what_no_program_can_be_started_with_is_malformed(config: dict[str, object], tmp_path: Path) -> None:
    with pytest.raises(Malformed, match="a NUL, or of more than 65536 bytes"):
        unpacked(made(DOCKERFILE, config=json.dumps(config).encode()), tmp_path)
