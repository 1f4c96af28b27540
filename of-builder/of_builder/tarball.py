"""A request's tar: received as a stream, its signature checked, unpacked so that nothing escapes."""

from __future__ import annotations

import errno
import re
import tarfile
from collections.abc import AsyncIterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import msgspec

from sdk.context import CLOUD_ENTRY, CONFIG_ENTRY, CONTEXT_FOLDER, Digest, content_hash
from sdk.errors import Malformed, TooLarge, Unauthorized
from sdk.kinds import studied
from sdk.masking import LEAST
from sdk.registry import Reference
from sdk.signature import BUILDER_HEADER, Running

from . import sealed
from .callers import Caller, signed_by

CONFIG_BYTES = 256 * 1024
CLOUD_BYTES = 1024 * 1024
PLATFORMS = 8
NAME_BYTES = 1024
# Linux takes 128 KiB for one argument of a program, and buildx gets NAME=VALUE.
TEXT_BYTES = 64 * 1024
# By these, images are found again and logs are read: nobody may say what they stand for.
_KEPT_TAG = re.compile(r"ctx-.*|log-.*|cache")
_ARGUMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_PIECE = 1024 * 1024
# A global header is repeated for each entry: `git archive` writes a commit in one.
_EXTENSIONS = {
    tarfile.XHDTYPE: 64 * 1024,
    tarfile.SOLARIS_XHDTYPE: 64 * 1024,
    tarfile.GNUTYPE_LONGNAME: 64 * 1024,
    tarfile.GNUTYPE_LONGLINK: 64 * 1024,
    tarfile.XGLTYPE: 1024,
}
_SIGNATURE = re.compile(r"sha256=[0-9a-f]{64}")
_PLATFORM = re.compile(r"[a-z0-9]{1,20}/[a-z0-9]{1,20}(?:/[a-z0-9.]{1,20})?")
# What only the operator sets: these change a build without being in its cache's keys, or choose its reader.
_OURS = re.compile(r"(?i:.*_proxy|BUILDKIT_.*|SOURCE_DATE_EPOCH)")
# What names and sizes in a tar lead to. Any other trouble with files is ours, and may pass.
_THEIRS = (errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ)


@dataclass(frozen=True)
class Config:
    """`com.openfaas.docker.config`; the original cloud said `ref` for `image`, and `epoch` is ours."""

    image: str = ""
    ref: str = ""
    build_args: dict[str, str] = field(default_factory=dict)
    platforms: list[str] = field(default_factory=list)
    skip_push: bool = False
    epoch: str = ""

    @property
    def reference(self) -> Reference:
        """The image to push."""
        return Reference.parse(self.image or self.ref)


@dataclass(frozen=True)
class Job:
    """What is to be built: the unpacked context, its config, and the digest of both.

    `origin` has the labels that say where it comes from, `given` the author's values, which no log shows.
    """

    context: Path
    config: Config
    digest: str
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    origin: Mapping[str, str] = field(default_factory=dict)
    given: tuple[str, ...] = field(default=(), repr=False)

    @property
    def image(self) -> Reference:
        return self.config.reference

    @property
    def hidden(self) -> tuple[str, ...]:
        """What no log shows."""
        return (*self.secrets.values(), *self.given)

    @property
    def owner(self) -> str:
        """Who shares caches with whom: `scm/owner id` of `scm/owner id/repository id/function`.

        What has no such path is one owner's with all that is beside it.
        """
        parts = self.image.path.split("/")
        return "/".join(parts[: max(1, min(2, len(parts) - 1))])


async def receive(
    body: AsyncIterable[bytes], to: Path, header: str | None, callers: Mapping[Caller, Running], limit: int
) -> Caller:
    """Write the body to the new file `to`, at most `limit` bytes, and tell by its signature whose it is.

    Of a request that can't be a signed one, nothing is read.
    """
    if not _SIGNATURE.fullmatch(header or ""):
        raise Unauthorized(f"the request has no {BUILDER_HEADER}: sha256=…")
    size = 0
    with to.open("xb") as file:
        async for piece in body:
            size += len(piece)
            if size > limit:
                raise TooLarge(f"the request is larger than {limit // 1024**2} MiB")
            for signature in callers.values():
                signature.update(piece)
            file.write(piece)
    return signed_by(callers, header)


def unpack(tar_file: Path, folder: Path, key: sealed.Key, *, entries_limit: int, bytes_limit: int) -> Job:
    """Unpack `context/` below `folder`, read the config, and open the sealed secrets.

    Raises `Malformed` for what is no such tar, or has entries that would leave the context,
    `TooLarge` above the limits, and the `OSError` that is no fault of the tar.
    """
    context = folder / CONTEXT_FOLDER
    context.mkdir(parents=True)
    config, secrets, told = None, dict[str, str](), _Told()
    digest, links, left = Digest(), dict[str, str](), bytes_limit
    seen, folders = set[str](), set[PurePosixPath]()
    try:
        with tarfile.open(tar_file, mode="r:", tarinfo=_Header) as tar:
            while info := tar.next():
                # tarfile keeps each entry, with all that a global header says of it.
                tar.members.clear()  # type: ignore[attr-defined]
                name = _checked_name(info.name)
                if name in seen:
                    raise Malformed(f"the tar has {name} twice")
                seen.add(name)
                folders.update(PurePosixPath(name).parents)
                left -= info.size
                if len(seen) + len(folders) > entries_limit or left < 0:
                    raise TooLarge(f"the tar has more than {entries_limit} entries or {bytes_limit} bytes")
                if name == CONFIG_ENTRY:
                    config = _config(_content(tar, info, CONFIG_BYTES))
                elif name == CLOUD_ENTRY:
                    told = _told(_content(tar, info, CLOUD_BYTES))
                elif name == sealed.ENTRY:
                    secrets = key.open(_content(tar, info, sealed.ENTRY_BYTES))
                elif name.startswith(f"{CONTEXT_FOLDER}/") and info.issym():
                    links[name.removeprefix(f"{CONTEXT_FOLDER}/")] = info.linkname
                elif name.startswith(f"{CONTEXT_FOLDER}/"):
                    _unpack_entry(tar, info, name.removeprefix(f"{CONTEXT_FOLDER}/"), context, digest)
        for name in links:  # last: so nothing was written through one
            _link(name, links, context, digest)
    except (tarfile.TarError, EOFError, UnicodeError, ValueError, OSError, RecursionError) as error:
        if isinstance(error, OSError) and error.errno not in _THEIRS:
            raise
        raise Malformed(f"the tar can't be unpacked: {error}") from None
    if config is None:
        raise Malformed(f"the tar has no {CONFIG_ENTRY}")
    dockerfile = context / "Dockerfile"
    if dockerfile.is_symlink() or not dockerfile.is_file():
        raise Malformed("the context has no Dockerfile")
    whole = digest.hex(config.build_args, config.platforms, config.epoch)
    return Job(context, config, whole, secrets, _origin(told), _given(told))


class _Header(tarfile.TarInfo):
    """A header of an entry: those that speak of the next one are read into memory as a whole."""

    def _proc_member(self, tar: tarfile.TarFile) -> tarfile.TarInfo:
        limit = _EXTENSIONS.get(self.type)
        if self.size < 0 or (limit is not None and self.size > limit):
            raise tarfile.ReadError(f"a header of {self.size} bytes")
        return super()._proc_member(tar)  # type: ignore[misc,no-any-return]


def _checked_name(name: str) -> str:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts or len(name.encode()) > NAME_BYTES:
        raise Malformed(f"the tar has an entry with the name {name[:100]!r}")
    return str(path)


def _content(tar: tarfile.TarFile, info: tarfile.TarInfo, limit: int) -> bytes:
    if not info.isfile() or info.size > limit:
        raise Malformed(f"the tar's {info.name} is no file, or larger than {limit} bytes")
    content = tar.extractfile(info)
    return content.read() if content else b""


def _config(content: bytes) -> Config:
    try:
        rows = msgspec.json.decode(content, type=dict[str, object])
        # Its keys in any case, as Go reads them: the first cloud wrote `Ref`.
        renamed = {"buildargs": "build_args", "skippush": "skip_push"}
        given = {renamed.get(key.lower(), key.lower()): rows[key] for key in rows if rows[key] is not None}
        config: Config = msgspec.convert(given, studied(Config))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Malformed(f"{CONFIG_ENTRY}: {error}") from None
    if not (config.image or config.ref):
        raise Malformed(f"{CONFIG_ENTRY}: image is missing")
    if _KEPT_TAG.fullmatch(config.reference.tag):
        raise Malformed(f"{CONFIG_ENTRY}: the tag {config.reference.tag} is of-builder's own: choose another")
    for name, value in config.build_args.items():
        if "\0" in name + value or len(f"{name}={value}".encode(errors="surrogatepass")) > TEXT_BYTES:
            raise Malformed(f"{CONFIG_ENTRY}: a text with a NUL, or of more than {TEXT_BYTES} bytes")
        if not _ARGUMENT.fullmatch(name) or _OURS.fullmatch(name):
            raise Malformed(f"{CONFIG_ENTRY}: build arg {name[:100]!r} is not yours to set")
    if len(config.platforms) > PLATFORMS or not all(map(_PLATFORM.fullmatch, config.platforms)):
        raise Malformed(f"{CONFIG_ENTRY}: platforms are at most {PLATFORMS}, as linux/amd64")
    return config


def _told(content: bytes) -> _Told:
    """What the cloud tells of a function."""
    try:
        return msgspec.json.decode(content, type=studied(_Told))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Malformed(f"{CLOUD_ENTRY}: {error}") from None


def _given(told: _Told) -> tuple[str, ...]:
    """The function's values, as the stage records mask them: line by line, and none that is short."""
    values = (*told.function.build_args.values(), *told.function.environment.values())
    lines = {line.strip() for value in values for line in value.splitlines()}
    return tuple(sorted(line for line in lines if len(line) >= LEAST))


def _origin(told: _Told) -> dict[str, str]:
    """The labels that say where it comes from.

    https://github.com/opencontainers/image-spec/blob/main/annotations.md
    """
    labels = {"source": told.repository.html_url, "revision": told.sha}
    return {
        f"org.opencontainers.image.{name}": text
        for name, text in labels.items()
        if text and text.isprintable() and len(text) <= NAME_BYTES
    }


class _Repository(msgspec.Struct):
    html_url: str = ""


class _Function(msgspec.Struct):
    build_args: dict[str, str] = msgspec.field(default_factory=dict)
    environment: dict[str, str] = msgspec.field(default_factory=dict)


class _Told(msgspec.Struct):
    sha: str = ""
    function: _Function = msgspec.field(default_factory=_Function)
    repository: _Repository = msgspec.field(default_factory=_Repository)


def _link(name: str, links: Mapping[str, str], context: Path, digest: Digest) -> None:
    """Make a link that leads to somewhere in the context, whatever other links are on its way.

    So its folder is none, and it goes up only where it begins: as many folders as it is deep, at most.
    """
    target, place = links[name], context / name
    parts = [part for part in target.split("/") if part not in ("", ".")]
    up = next((at for at, part in enumerate(parts) if part != ".."), len(parts))
    depth = len(PurePosixPath(name).parts) - 1
    through_link = any(str(parent) in links for parent in PurePosixPath(name).parents)
    if not target or target.startswith("/") or up > depth or ".." in parts[up:] or through_link:
        raise Malformed(f"the tar's link {name} leaves the context")
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(target)
    digest.link(name, target)


def _unpack_entry(
    tar: tarfile.TarFile, info: tarfile.TarInfo, name: str, context: Path, digest: Digest
) -> None:
    target = context / name
    if info.isdir():
        target.mkdir(parents=True, exist_ok=True)
        digest.folder(name)
    elif info.isfile():
        target.parent.mkdir(parents=True, exist_ok=True)
        content, hashed = tar.extractfile(info), content_hash()
        with target.open("xb") as file:
            while content and (piece := content.read(_PIECE)):
                hashed.update(piece)
                file.write(piece)
        target.chmod(info.mode & 0o777)
        digest.file(name, info.mode, hashed.hexdigest())
    else:
        raise Malformed(f"the tar's entry {name} is neither a file nor a folder, nor a symbolic link")
