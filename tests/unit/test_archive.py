"""The file of a backup: what is whole is read, and of all else nothing is believed."""

from __future__ import annotations

import hashlib
import io
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from local import archive, restore
from local.state import State
from sdk.errors import Malformed

HEAD = archive.Head(archive.FORMAT, "0.1.0", "2026-11-27T12:00:00+00:00")
FILES = {
    "ports.json": b'{"gateway_port":8080,"builder_port":8081,"git_port":8082,"registry_port":5000}',
    "credentials/payload-secret": b"secret",
    "secrets/local-1-word": b"\0\xff",
    "functions/alice-hello.json": b'{"service":"alice-hello","image":"a"}',
}
VOLUME = {"alice/hello.git/HEAD": b"ref: refs/heads/master\n", "ä" * 200: b"x" * 70_000}


def written(folder: Path) -> Path:
    """A whole backup."""
    file = folder / "backup"
    with file.open("wb") as out:
        writer = archive.Writer(out, HEAD)
        for path, content in FILES.items():
            writer.add(path, content)
        writer.add_volume("git", volume())
        writer.close()
    return file


def volume() -> tarfile.TarFile:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for path, content in VOLUME.items():
            info = tarfile.TarInfo(path)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    packed.seek(0)
    return tarfile.open(fileobj=packed, mode="r|")


def forged(file: Path, members: Sequence[tuple[str, bytes]], content: bytes = b"x") -> Path:
    """A backup with members of any name and type, and an end that fits."""
    out = io.BytesIO()
    tar = tarfile.TarFile(fileobj=out, mode="w")
    for name, kind in [("backup.json", tarfile.REGTYPE), *members]:
        data = msgspec.json.encode(HEAD) if name == "backup.json" else content
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, "/etc/passwd"
        info.size = len(data) if kind == tarfile.REGTYPE else 0
        tar.addfile(info, io.BytesIO(data))
    end = msgspec.json.encode(archive.End(hashlib.sha256(out.getvalue()).hexdigest()))
    info = tarfile.TarInfo("end.json")
    info.size = len(end)
    tar.addfile(info, io.BytesIO(end))
    tar.close()
    file.write_bytes(out.getvalue())
    return file


def test_what_was_written_is_read(tmp_path: Path) -> None:
    checked = archive.check(written(tmp_path))
    assert checked.head == HEAD
    found = {str(path): content for path, content in checked.files()}
    assert found.pop("backup.json") == msgspec.json.encode(HEAD)
    assert found == FILES
    with tarfile.open(fileobj=io.BytesIO(b"".join(checked.volumes()))) as tar:
        read = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
    assert read == {f"volumes/git/{path}": content for path, content in VOLUME.items()}


@given(data=st.data())
def test_a_backup_that_is_cut_off_is_told(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = written(Path(folder))
        whole, end = file.read_bytes(), archive.check(file).volumes_end
        file.write_bytes(whole[: data.draw(st.integers(0, end + tarfile.BLOCKSIZE))])
        with pytest.raises(Malformed, match="is no backup, or not a whole one"):
            archive.check(file)


@given(data=st.data())
def test_a_changed_byte_is_told(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = written(Path(folder))
        whole, end = bytearray(file.read_bytes()), archive.check(file).volumes_end
        whole[data.draw(st.integers(0, end - 1))] ^= data.draw(st.integers(1, 255))
        file.write_bytes(whole)
        with pytest.raises(Malformed):
            archive.check(file)


@given(st.binary(max_size=4096))
def test_what_is_no_backup_is_told(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "backup"
        file.write_bytes(content)
        with pytest.raises(Malformed):
            archive.check(file)


@pytest.mark.parametrize(
    "name",
    [
        *("/etc/passwd", "../x", "volumes/git/../../x", "volumes/git/./x", "volumes/git//x", "volumes/../x"),
        *("volumes", "volumes/other/x", "credentials/../x", "credentials/a/b", "credentials/", "secrets/.."),
        *("functions/A.json", "ports.json/x", "anything", "", "end.json/x", "backup.json"),
    ],
)
def test_what_does_not_belong_into_a_backup_is_told(tmp_path: Path, name: str) -> None:
    with pytest.raises(Malformed):
        archive.check(forged(tmp_path / "backup", [(name, tarfile.REGTYPE)]))


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE]
)
@pytest.mark.parametrize("name", ["volumes/git/x", "credentials/x", "ports.json"])
def test_links_and_devices_are_told(tmp_path: Path, name: str, kind: bytes) -> None:
    with pytest.raises(Malformed, match="does not belong into a backup"):
        archive.check(forged(tmp_path / "backup", [(name, kind)]))


def test_the_order_is_told(tmp_path: Path) -> None:
    """The volumes' bytes are handed on as they are: nothing else may stand among them."""
    members = [(name, tarfile.REGTYPE) for name in ("volumes/git/x", "credentials/x", "volumes/git/y")]
    with pytest.raises(Malformed, match="does not belong there"):
        archive.check(forged(tmp_path / "backup", members))


def test_what_is_there_twice_is_told(tmp_path: Path) -> None:
    with pytest.raises(Malformed, match="is there twice"):
        archive.check(forged(tmp_path / "backup", 2 * [("credentials/x", tarfile.REGTYPE)]))


_NAMES = st.lists(
    st.sampled_from(
        ["volumes", "git", "queue", "..", ".", "", "a", "credentials", "secrets", "/", "ports.json"]
    )
    | st.text(max_size=5),
    max_size=5,
).map("/".join)
_KINDS = st.sampled_from([tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE])


@given(st.lists(st.tuples(_NAMES, _KINDS), max_size=4))
def test_no_path_leads_out_of_where_it_belongs(members: list[tuple[str, bytes]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        try:
            file = forged(Path(folder) / "backup", members)
        except UnicodeEncodeError:  # no name of a file
            return
        try:
            checked = archive.check(file)
        except Malformed:
            return
        with tarfile.open(fileobj=io.BytesIO(b"".join(checked.volumes()))) as tar:
            for member in tar:
                path = PurePosixPath(member.name)
                assert path.parts[0] == "volumes"
                assert path.parts[1] in archive.VOLUME_NAMES
                assert ".." not in path.parts
                assert member.isreg() or member.isdir()
        for path, _ in checked.files():
            assert len(path.parts) == 1 or path.parts[0] in ("credentials", "secrets", "functions")
            assert len(path.parts) <= 2
            assert ".." not in path.parts


def test_a_format_of_the_future_is_told(tmp_path: Path) -> None:
    file = tmp_path / "backup"
    with file.open("wb") as out:
        archive.Writer(out, archive.Head(2, "3.0.0", "")).close()
    with pytest.raises(Malformed, match=r"format 2, of version 3\.0\.0; this checkout reads format 1"):
        archive.check(file)


def test_a_restore_of_a_bad_backup_changes_nothing(tmp_path: Path) -> None:
    file = written(tmp_path)
    file.write_bytes(file.read_bytes()[:-20_000])
    with pytest.raises(Malformed):
        restore.restore(file, State(tmp_path / "state"))
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize(
    ("path", "content", "told"),
    [
        ("ports.json", b'{"gateway_port":0}', "no port"),
        ("ports.json", b"[]", "no function, or no ports"),
        ("functions/alice-hello.json", b"{}", "is of ''"),
        ("functions/alice-hello.json", b"\xff", "no function, or no ports"),
        ("functions/alice-hello.json", b'{"service":"bob-hello"}', "is of 'bob-hello'"),
    ],
)
def test_what_it_holds_is_looked_at_too(tmp_path: Path, path: str, content: bytes, told: str) -> None:
    file = tmp_path / "backup"
    with file.open("wb") as out:
        writer = archive.Writer(out, HEAD)
        for name, kept in {**FILES, path: content}.items():
            writer.add(name, kept)
        writer.close()
    with pytest.raises(Malformed, match=told):
        restore.restore(file, State(tmp_path / "state"))
    assert not (tmp_path / "state").exists()
