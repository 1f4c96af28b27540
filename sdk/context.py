"""A build context as the tar that faas-cli's remote builder protocol sends, and its digest.

The tar is uncompressed: `context/…`, then `com.openfaas.cloud.json` for buildshiprun, and last
`com.openfaas.docker.config` for of-builder. It is written in one pass that also hashes each file and
signs the stream, so that no byte is read twice.
"""

from __future__ import annotations

import hashlib
import os
import tarfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import msgspec

from .errors import Unavailable
from .secrets import Keys
from .shrinkwrap import Context, Entry
from .signature import Running

CLOUD_ENTRY = "com.openfaas.cloud.json"
CONFIG_ENTRY = "com.openfaas.docker.config"
CONTEXT_FOLDER = "context"
_BLOCK = 256 * 1024
_EMPTY = tarfile.TarInfo().tobuf(tarfile.USTAR_FORMAT)
_REST = sum(_EMPTY[156:])


@dataclass(frozen=True)
class SignedTar:
    """A tar on disk, the header that signs its bytes, and the digest of the context in it."""

    path: Path
    signature: str
    digest: str


@dataclass
class Digest:
    """SHA-256 over all that decides what is built: paths, kinds, modes, contents, build args and epoch.

    Contents count by their `content_hash`. git-tar computes it of what it sends and of-builder of what it
    got: the same rows, in any order.
    """

    # Each as canonical JSON: no two different rows give the same bytes.
    rows: list[bytes] = field(default_factory=list)

    def folder(self, path: str) -> None:
        self.rows.append(msgspec.json.encode((path, "folder", 0, "")))

    def file(self, path: str, mode: int, content: str) -> None:
        self.rows.append(msgspec.json.encode((path, "file", mode & 0o777, content)))

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


def content_hash() -> hashlib.blake2b:
    """The hash of a file's content, 32 bytes: as strong as SHA-256, and half its time on most processors.

    https://www.rfc-editor.org/rfc/rfc7693
    """
    return hashlib.blake2b(digest_size=32)


class _Out:
    """A tar that is signed as it is written. tarfile's own writing costs thousands of small files too much.

    What is read next is read while a thread signs and writes what was read before.
    """

    def __init__(self, file: BinaryIO, signature: Running) -> None:
        self._file = file
        self._signature = signature
        self._pending = bytearray()
        self._thread = ThreadPoolExecutor(1)
        self._before = self._thread.submit(self._put, b"")

    def __enter__(self) -> _Out:
        return self

    def __exit__(self, *raised: object) -> None:
        with self._thread:
            self._flush()
            self._before.result()

    def write(self, piece: bytes) -> None:
        self._pending += piece
        if len(self._pending) >= _BLOCK:
            self._flush()

    def _flush(self) -> None:
        self._before.result()  # so that two blocks are all that is in memory
        self._before = self._thread.submit(self._put, bytes(self._pending))
        self._pending.clear()

    def _put(self, block: bytes) -> None:
        self._signature.update(block)
        self._file.write(block)

    def folder(self, name: str) -> None:
        info = tarfile.TarInfo(name)
        info.type, info.mode = tarfile.DIRTYPE, 0o755
        self.write(info.tobuf(tarfile.PAX_FORMAT))

    def fill(self, size: int) -> None:
        """End an entry of `size` bytes."""
        self.write(bytes(-size % tarfile.BLOCKSIZE))

    def add(self, name: str, content: bytes) -> None:
        self.write(header(name, len(content), 0o644))
        self.write(content)
        self.fill(len(content))

    def copy(self, name: str, entry: Entry) -> str:
        """Add a file; returns the `content_hash` of what was in it."""
        left, hashed = entry.size, content_hash()
        self.write(header(name, left, entry.mode))
        file = os.open(entry.source, os.O_RDONLY)  # half the time of a file object
        try:
            while left:
                piece = os.read(file, min(left, _BLOCK))
                if not piece:
                    raise Unavailable(f"{name} became shorter while it was packed")
                left -= len(piece)
                hashed.update(piece)
                self.write(piece)
        finally:
            os.close(file)
        self.fill(entry.size)
        return hashed.hexdigest()


def header(name: str, size: int, mode: int) -> bytes:
    """The header of a plain file: tarfile's, with its four fields filled in here where they are short."""
    encoded = name.encode()
    if len(encoded) > 100 or not name.isascii() or size >= 8**11:
        info = tarfile.TarInfo(name)
        info.size, info.mode = size, mode
        return info.tobuf(tarfile.PAX_FORMAT)
    head = (
        encoded.ljust(100, b"\0") + b"%07o\0" % mode + _EMPTY[108:124] + b"%011o\0" % size + _EMPTY[136:148]
    )
    checksum = sum(head) + sum(b" " * 8) + _REST
    return head + b"%06o\0 " % checksum + _EMPTY[156:]


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
    with ExitStack() as failed:
        with path.open("xb") as file, _Out(file, signature) as out:
            failed.callback(path.unlink)
            for name in sorted(context.entries):
                entry = context.entries[name]
                if entry.is_folder:
                    out.folder(f"{CONTEXT_FOLDER}/{name}")
                    digest.folder(name)
                else:
                    digest.file(name, entry.mode, out.copy(f"{CONTEXT_FOLDER}/{name}", entry))
            hex_digest = digest.hex(config.build_args, epoch=config.epoch)
            if describe:
                out.add(CLOUD_ENTRY, describe(hex_digest))
            out.add(CONFIG_ENTRY, config.json())
            out.write(bytes(2 * tarfile.BLOCKSIZE))
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
