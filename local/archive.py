"""The file of a backup: a tar that tells its format first, and at its end that it is whole.

    backup.json            {"format": 1, "version": …, "createdAt": …}
    ports.json             as in the state's folder
    credentials/NAME       a file of the state's folder `secrets`
    secrets/NAME           the value of a secret in the cluster
    functions/NAME.json    what was deployed, as the gateway keeps it
    volumes/NAME/PATH      a file or folder of git, queue or registry
    end.json               {"sha256": of all bytes before it}

Nothing in it is believed before `check` has read all of it.
"""

from __future__ import annotations

import hashlib
import io
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, BinaryIO, TypeVar, cast

import msgspec

from sdk.errors import Malformed

FORMAT = 1
HEAD, PORTS, END = "backup.json", "ports.json", "end.json"
CREDENTIALS, SECRETS, FUNCTIONS, VOLUMES = "credentials", "secrets", "functions", "volumes"
VOLUME_NAMES = ("queue", "git", "registry")
# In this order; volumes stand together, so that they can be handed on as they are.
_ORDER = (HEAD, PORTS, CREDENTIALS, SECRETS, FUNCTIONS, VOLUMES, END)
_NAME = re.compile(r"[a-z0-9](?:[-.a-z0-9]{0,251}[a-z0-9])?(?:\.json)?")
_MOST_BYTES = 4 * 1024**2
_PIECE = 1024**2

T = TypeVar("T")


class Head(msgspec.Struct, frozen=True, rename="camel"):
    format: int
    version: str
    created_at: str


class End(msgspec.Struct, frozen=True):
    sha256: str


@dataclass(frozen=True)
class Checked:
    """A whole archive; the volumes' members are the bytes from `volumes_start` to `volumes_end`."""

    path: Path
    head: Head
    volumes_start: int
    volumes_end: int

    def files(self) -> Iterator[tuple[PurePosixPath, bytes]]:
        """All that is no volume's, by path."""
        with tarfile.open(self.path, "r:") as tar:
            for member in tar:
                if member.offset >= self.volumes_start:
                    return
                source = tar.extractfile(member)
                assert source
                yield PurePosixPath(member.name), source.read()

    def volumes(self) -> Iterator[bytes]:
        """The volumes' members as a tar of their own, in pieces."""
        with self.path.open("rb") as file:
            file.seek(self.volumes_start)
            yield from _pieces(file, self.volumes_end - self.volumes_start)
        yield bytes(2 * tarfile.BLOCKSIZE)


class Writer:
    """Writes an archive to `sink` as it comes; `close` says that it is whole."""

    def __init__(self, sink: BinaryIO, head: Head) -> None:
        self._sink = _Summed(sink)
        self._tar = tarfile.TarFile(fileobj=cast("IO[bytes]", self._sink), mode="w")
        self.add(HEAD, msgspec.json.encode(head))

    def add(self, path: str, content: bytes) -> None:
        info = tarfile.TarInfo(path)
        info.size, info.mode = len(content), 0o600
        self._tar.addfile(info, io.BytesIO(content))

    def add_volume(self, name: str, source: tarfile.TarFile) -> int:
        """All that `source` holds, as the volume's; how many bytes."""
        total = 0
        for member in source:
            path = PurePosixPath(VOLUMES, name, member.name)
            total += member.size
            member.name, member.pax_headers = str(path), {}
            self._tar.addfile(member, source.extractfile(member) if member.isreg() else None)
        return total

    def close(self) -> None:
        self.add(END, msgspec.json.encode(End(self._sink.digest)))
        self._tar.close()


class _Summed:
    """A file that knows the digest of what was written."""

    def __init__(self, sink: BinaryIO) -> None:
        self._sink, self._sum, self._at = sink, hashlib.sha256(), 0

    @property
    def digest(self) -> str:
        return self._sum.hexdigest()

    def write(self, data: bytes) -> int:
        self._sum.update(data)
        self._at += len(data)
        self._sink.write(data)
        return len(data)

    def tell(self) -> int:
        return self._at


def check(path: Path) -> Checked:
    """Read all of it; `Malformed` says what is wrong with it."""
    try:
        with tarfile.open(path, "r:") as tar:
            head, start, end, digest = _members(tar)
    except (tarfile.TarError, EOFError, ValueError) as error:  # ValueError: numbers in headers
        raise Malformed(f"{path.name} is no backup, or not a whole one: {error}") from None
    with path.open("rb") as file:
        found = hashlib.sha256()
        for piece in _pieces(file, end):
            found.update(piece)
    if found.hexdigest() != digest:
        raise Malformed(f"{path.name} is damaged: it is not what was written")
    return Checked(path, head, start, end)


def _members(tar: tarfile.TarFile) -> tuple[Head, int, int, str]:
    """The head, where volumes begin and end, and the digest; of members that are all allowed."""
    head, start, at, seen = None, None, 0, set[str]()
    for member in tar:
        kind = member.name.partition("/")[0]
        if head is None and member.name != HEAD:
            raise tarfile.ReadError(f"it does not begin with {HEAD}")
        if kind not in _ORDER or _ORDER.index(kind) < at:
            raise tarfile.ReadError(f"{member.name!r} does not belong there")
        at = _ORDER.index(kind)
        _check_path(member)
        if kind == VOLUMES:
            start = member.offset if start is None else start
            continue
        if member.name in seen:
            raise tarfile.ReadError(f"{member.name!r} is there twice")
        seen.add(member.name)
        if kind == HEAD:
            head = _head(_content(tar, member))
        elif kind == END:
            assert head
            sha256 = _decoded(_content(tar, member), End, END).sha256
            return head, member.offset if start is None else start, member.offset, sha256
    raise tarfile.ReadError("its end is missing")


def _check_path(member: tarfile.TarInfo) -> None:
    """Only files and folders, and only below where they belong."""
    kind, *parts = member.name.split("/")
    if kind == VOLUMES:
        allowed = bool(parts) and parts[0] in VOLUME_NAMES and (member.isreg() or member.isdir())
        whole = "\0" not in member.name and not {"", ".", ".."} & set(parts)
    elif kind in (CREDENTIALS, SECRETS, FUNCTIONS):
        allowed = len(parts) == 1 and bool(_NAME.fullmatch(parts[0])) and member.isreg()
        whole = member.size <= _MOST_BYTES
    else:
        allowed, whole = not parts and member.isreg(), member.size <= _MOST_BYTES
    if not (allowed and whole):
        raise tarfile.ReadError(f"{member.name!r} does not belong into a backup")


def _head(data: bytes) -> Head:
    found = _decoded(data, Head, HEAD)
    if found.format != FORMAT:
        raise Malformed(
            f"the backup has format {found.format}, of version {found.version}; this checkout reads format "
            f"{FORMAT}: restore it with a checkout of that version, then upgrade"
        )
    return found


def _decoded(data: bytes, kind: type[T], name: str) -> T:
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise tarfile.ReadError(f"{name}: {error}") from None


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    source = tar.extractfile(member)
    assert source
    content = source.read()
    if len(content) != member.size:
        raise tarfile.ReadError("it is cut off")
    return content


def _pieces(file: BinaryIO, count: int) -> Iterator[bytes]:
    while count and (piece := file.read(min(count, _PIECE))):
        count -= len(piece)
        yield piece
