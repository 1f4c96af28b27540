"""A build context as the tar that faas-cli's remote builder protocol sends, and its digest.

The tar is uncompressed: `context/…`, then `com.openfaas.cloud.json` for buildshiprun, and last
`com.openfaas.docker.config` for of-builder. It is written in one pass that also hashes each file and
signs the stream, so that no byte is read twice.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import msgspec

from .secrets import Keys
from .shrinkwrap import Context, Entry
from .signature import Running

if TYPE_CHECKING:
    from typing_extensions import Buffer

CLOUD_ENTRY = "com.openfaas.cloud.json"
CONFIG_ENTRY = "com.openfaas.docker.config"
CONTEXT_FOLDER = "context"
_BLOCK = 256 * 1024


@dataclass(frozen=True)
class SignedTar:
    """A tar on disk, the header that signs its bytes, and the digest of the context in it."""

    path: Path
    signature: str
    digest: str


@dataclass
class Digest:
    """SHA-256 over all that decides what is built: paths, kinds, modes, contents, build args and epoch.

    git-tar computes it of what it sends and of-builder of what it got: the same rows, in any order.
    """

    # Each as canonical JSON: no two different rows give the same bytes.
    rows: list[bytes] = field(default_factory=list)

    def folder(self, path: str) -> None:
        self.rows.append(msgspec.json.encode((path, "folder", 0, "")))

    def file(self, path: str, mode: int, sha256: str) -> None:
        self.rows.append(msgspec.json.encode((path, "file", mode & 0o777, sha256)))

    def link(self, path: str, target: str) -> None:
        self.rows.append(msgspec.json.encode((path, "link", 0, target)))

    def hex(self, build_args: Mapping[str, str], platforms: Sequence[str] = (), epoch: str = "") -> str:
        """The digest; platforms and the epoch count only where there are some."""
        whole = hashlib.sha256(msgspec.json.encode(sorted(build_args.items())))
        if platforms:
            whole.update(b"\n" + msgspec.json.encode(sorted(platforms)))
        if epoch:
            whole.update(b"\n" + msgspec.json.encode({"epoch": epoch}))
        for row in sorted(self.rows):
            whole.update(b"\n" + row)
        return whole.hexdigest()


class Hashing:
    """A readable file that hashes what is read from it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._hash = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        piece = self._file.read(size)
        self._hash.update(piece)
        return piece

    def hex(self) -> str:
        return self._hash.hexdigest()


class _Signing(io.RawIOBase):
    """A writable file that signs what is written to it."""

    def __init__(self, file: BinaryIO, signature: Running) -> None:
        self._file = file
        self._signature = signature

    def write(self, piece: Buffer, /) -> int:
        self._signature.update(bytes(piece))
        return self._file.write(piece)


def write_tar(
    context: Context,
    path: Path,
    keys: Keys,
    config: BuildConfig,
    describe: Callable[[str], bytes] | None = None,
) -> SignedTar:
    """Write `context` to the new file `path`; what could not be written whole is removed.

    `describe` gets the context's digest and returns the content of `com.openfaas.cloud.json`;
    without it there is no such entry, as faas-cli sends it.
    """
    signature, digest = Running(keys), Digest()
    with path.open("xb") as file, ExitStack() as failed:
        failed.callback(path.unlink)
        out = _Signing(file, signature)
        with tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT, bufsize=_BLOCK) as tar:
            for name in sorted(context.entries):
                _add_entry(tar, name, context.entries[name], digest)
                tar.getmembers().clear()  # tarfile keeps each entry, for readers that we have none of
            hex_digest = digest.hex(config.build_args, epoch=config.epoch)
            if describe:
                _add_bytes(tar, CLOUD_ENTRY, describe(hex_digest))
            _add_bytes(tar, CONFIG_ENTRY, config.json())
        file.flush()
        failed.pop_all()
    return SignedTar(path, signature.header(), hex_digest)


@dataclass(frozen=True)
class BuildConfig:
    """`com.openfaas.docker.config`: the image to build (with its tag) and its build args.

    `epoch` is ours, and left out where there is none: nothing that was built in another one is used again.
    """

    image: str
    build_args: Mapping[str, str] = field(default_factory=dict)
    epoch: str = ""

    def json(self) -> bytes:
        epoch = {"epoch": self.epoch} if self.epoch else {}
        return msgspec.json.encode({"image": self.image, "buildArgs": dict(self.build_args), **epoch})


def read_entry(body: BinaryIO, name: str) -> bytes | None:
    """The content of the entry `name` of a tar, or None; tarfile's errors are the caller's."""
    with tarfile.open(fileobj=body, mode="r:") as tar:
        for info in tar:
            if info.name == name and info.isfile():
                content = tar.extractfile(info)
                return content.read() if content else None
    return None


def _add_entry(tar: tarfile.TarFile, name: str, entry: Entry, digest: Digest) -> None:
    info = tarfile.TarInfo(f"{CONTEXT_FOLDER}/{name}")
    info.mode = entry.mode
    if entry.is_folder:
        info.type, info.mode = tarfile.DIRTYPE, 0o755
        tar.addfile(info)
        digest.folder(name)
        return
    info.size = entry.size
    with entry.source.open("rb") as file:
        content = Hashing(file)
        tar.addfile(info, content)
    digest.file(name, entry.mode, content.hex())


def _add_bytes(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))
