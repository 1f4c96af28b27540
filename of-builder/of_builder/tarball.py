"""A request's tar: received as a stream, its signature checked, unpacked so that nothing escapes."""

from __future__ import annotations

import errno
import hashlib
import re
import tarfile
from collections.abc import AsyncIterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import msgspec

from sdk.context import CONFIG_ENTRY, CONTEXT_FOLDER, Digest
from sdk.errors import Malformed, TooLarge, Unauthorized
from sdk.secrets import Keys
from sdk.signature import BUILDER_HEADER, Running

CONFIG_BYTES = 256 * 1024
NAME_BYTES = 1024
# Linux takes 128 KiB for one argument of a program, and buildx gets NAME=VALUE.
TEXT_BYTES = 64 * 1024
_PIECE = 1024 * 1024
_SIGNATURE = re.compile(r"sha256=[0-9a-f]{64}")
# What names and sizes in a tar lead to. Any other trouble with files is ours, and may pass.
_THEIRS = (errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ)


@dataclass(frozen=True)
class Config:
    """`com.openfaas.docker.config`; the original cloud said `ref` for `image`."""

    image: str = ""
    ref: str = ""
    build_args: dict[str, str] = field(default_factory=dict)

    @property
    def reference(self) -> str:
        """The image to push, with its tag; no tag means `latest`."""
        name = self.image or self.ref
        return name if ":" in name.rpartition("/")[2] else f"{name}:latest"


@dataclass(frozen=True)
class Job:
    """What is to be built: the unpacked context, its config, and the digest of both."""

    context: Path
    config: Config
    digest: str


async def receive(body: AsyncIterable[bytes], to: Path, header: str | None, keys: Keys, limit: int) -> None:
    """Write the body to the new file `to`, at most `limit` bytes, and verify its signature.

    Of a request that can't be a signed one, nothing is read.
    """
    if not _SIGNATURE.fullmatch(header or ""):
        raise Unauthorized(f"the request has no {BUILDER_HEADER}: sha256=…")
    signature, size = Running(keys), 0
    with to.open("xb") as file:
        async for piece in body:
            size += len(piece)
            if size > limit:
                raise TooLarge(f"the request is larger than {limit // 1024**2} MiB")
            signature.update(piece)
            file.write(piece)
    signature.verify(header)


def unpack(tar_file: Path, folder: Path, *, entries_limit: int, bytes_limit: int) -> Job:
    """Unpack `context/` below `folder` and read the config.

    Raises `Malformed` for what is no such tar, or has entries that would leave the context,
    `TooLarge` above the limits, and the `OSError` that is no fault of the tar.
    """
    context = folder / CONTEXT_FOLDER
    context.mkdir(parents=True)
    config, digest, seen, left = None, Digest(), set[str](), bytes_limit
    try:
        with tarfile.open(tar_file, mode="r:") as tar:
            for info in tar:
                name = _checked_name(info.name)
                if name in seen:
                    raise Malformed(f"the tar has {name} twice")
                seen.add(name)
                left -= info.size
                if len(seen) > entries_limit or left < 0:
                    raise TooLarge(f"the tar has more than {entries_limit} entries or {bytes_limit} bytes")
                if name == CONFIG_ENTRY:
                    config = _config(tar, info)
                elif name.startswith(f"{CONTEXT_FOLDER}/"):
                    _unpack_entry(tar, info, name.removeprefix(f"{CONTEXT_FOLDER}/"), context, digest)
    except (tarfile.TarError, EOFError, UnicodeError, ValueError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in _THEIRS:
            raise
        raise Malformed(f"the tar can't be unpacked: {error}") from None
    if config is None:
        raise Malformed(f"the tar has no {CONFIG_ENTRY}")
    if not (context / "Dockerfile").is_file():
        raise Malformed("the context has no Dockerfile")
    return Job(context, config, digest.hex(config.build_args))


def _checked_name(name: str) -> str:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts or len(name.encode()) > NAME_BYTES:
        raise Malformed(f"the tar has an entry with the name {name[:100]!r}")
    return str(path)


def _config(tar: tarfile.TarFile, info: tarfile.TarInfo) -> Config:
    content = tar.extractfile(info) if info.size <= CONFIG_BYTES else None
    try:
        rows = msgspec.json.decode(content.read() if content else b"", type=dict[str, object])
        known = {"build_args" if key == "buildArgs" else key: rows[key] for key in rows}
        config = msgspec.convert(known, Config)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Malformed(f"{CONFIG_ENTRY}: {error}") from None
    if not 0 < len(config.image or config.ref) <= NAME_BYTES:
        raise Malformed(f"{CONFIG_ENTRY}: image is missing or too long")
    for text in (config.reference, *config.build_args, *config.build_args.values()):
        if "\0" in text or len(text.encode(errors="surrogatepass")) > TEXT_BYTES:
            raise Malformed(f"{CONFIG_ENTRY}: a text with a NUL, or of more than {TEXT_BYTES} bytes")
    return config


def _unpack_entry(
    tar: tarfile.TarFile, info: tarfile.TarInfo, name: str, context: Path, digest: Digest
) -> None:
    target = context / name
    if info.isdir():
        target.mkdir(parents=True, exist_ok=True)
        digest.folder(name)
    elif info.isfile():
        target.parent.mkdir(parents=True, exist_ok=True)
        content, hashed = tar.extractfile(info), hashlib.sha256()
        with target.open("xb") as file:
            while content and (piece := content.read(_PIECE)):
                hashed.update(piece)
                file.write(piece)
        target.chmod(info.mode & 0o777)
        digest.file(name, info.mode, hashed.hexdigest())
    else:
        raise Malformed(f"the tar's entry {name} is neither a file nor a folder")
