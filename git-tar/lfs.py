"""Files in Git LFS: told of, and fetched where the operator wants it.

https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md and .../docs/api/batch.md
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import requests

from .fetch import Remote
from .mirrors import Checkout
from .sdk import messages
from .sdk.errors import Failed, TooLarge, Unavailable, Upstream
from .sdk.settings import Settings

_POINTER = re.compile(
    rb"version https://git-lfs\.github\.com/spec/v1\n(?:ext-[^\n]*\n)*"
    rb"oid sha256:([0-9a-f]{64})\nsize (\d{1,15})\n"
)
_POINTER_BYTES = 1024
_TYPE = "application/vnd.git-lfs+json"
_BLOCK = 256 * 1024
_BATCH = 100


@dataclass(frozen=True)
class Pointer:
    """What stands in the repository for a large file: `oid` is the SHA-256 of its content."""

    path: str
    oid: str
    size: int


def pointers(checkout: Checkout) -> Sequence[Pointer]:
    """The files of the tree that are pointers."""
    if not any(file.path.rpartition("/")[2] == ".gitattributes" for file in checkout.files):
        return ()
    found = []
    for file in checkout.files:
        path = checkout.folder / file.path
        if file.size <= _POINTER_BYTES and file.mode.startswith("100") and not path.is_symlink():
            match = _POINTER.fullmatch(path.read_bytes())
            if match:
                found.append(Pointer(file.path, match[1].decode(), int(match[2])))
    return found


def fill(
    checkout: Checkout, found: Sequence[Pointer], remote: Remote, settings: Settings, deadline: float
) -> None:
    """Put each pointer's file in its place, checked against its oid. `deadline`: by time.monotonic."""
    total = sum(pointer.size for pointer in found)
    if total > settings.repo_limit_mb * 1024**2:
        raise TooLarge(
            f"{remote.url} has {total / 1024**2:.1f} MiB in Git LFS, {settings.repo_limit_mb} MiB are allowed"
        )
    for start in range(0, len(found), _BATCH):
        batch = found[start : start + _BATCH]
        actions = _batch(batch, remote, settings)
        for pointer in batch:
            if pointer.oid not in actions:
                raise Failed(f"Git LFS: the server has no content for {pointer.path}")
            _download(actions[pointer.oid], pointer, checkout.folder, settings, deadline)


def _batch(found: Sequence[Pointer], remote: Remote, settings: Settings) -> Mapping[str, _Action]:
    """Where each oid can be fetched."""
    wanted = {
        "operation": "download",
        "transfers": ["basic"],
        "objects": [{"oid": pointer.oid, "size": pointer.size} for pointer in found],
    }
    try:
        answer = requests.post(
            f"{remote.url.rstrip('/').removesuffix('.git')}.git/info/lfs/objects/batch",
            json=wanted,
            headers={"Accept": _TYPE, "Content-Type": _TYPE},
            auth=("x-access-token", remote.token) if remote.token else None,
            timeout=settings.fetch_timeout,
            allow_redirects=False,
        )
    except requests.RequestException as error:
        raise Unavailable(f"Git LFS of {remote.url}: {type(error).__name__}") from None
    if answer.status_code != 200:
        raise Unavailable(f"Git LFS of {remote.url}: the server answered {answer.status_code}")
    objects = messages.decode(answer.content, _Batch).objects
    return {row.oid: row.actions["download"] for row in objects if "download" in row.actions}


def _download(action: _Action, pointer: Pointer, folder: Path, settings: Settings, deadline: float) -> None:
    if urlsplit(action.href).scheme not in ("https", "http"):
        raise Upstream(
            f"Git LFS: {pointer.path} has a URL that is not http: {urlsplit(action.href).scheme!r}"
        )
    digest, size = hashlib.sha256(), 0
    try:
        with (
            requests.get(
                action.href, headers=dict(action.header), stream=True, timeout=settings.fetch_timeout
            ) as answer,
            (folder / pointer.path).open("wb") as file,
        ):
            answer.raise_for_status()
            for piece in answer.iter_content(_BLOCK):
                size += len(piece)
                if size > pointer.size:
                    break
                if time.monotonic() > deadline:
                    raise Failed("fetching from Git LFS takes too long (setting push_timeout)")
                digest.update(piece)
                file.write(piece)
    except requests.RequestException as error:
        raise Unavailable(f"Git LFS: {pointer.path}: {type(error).__name__}") from None
    if (digest.hexdigest(), size) != (pointer.oid, pointer.size):
        raise Unavailable(f"Git LFS: what the server sent for {pointer.path} is not its content")


@dataclass(frozen=True)
class _Action:
    href: str
    header: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Object:
    oid: str
    actions: Mapping[str, _Action] = field(default_factory=dict)


@dataclass(frozen=True)
class _Batch:
    objects: tuple[_Object, ...]
