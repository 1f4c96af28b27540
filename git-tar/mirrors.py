"""Shallow mirrors: what was fetched of a repository stays, so that the next push moves only what changed.

A mirror is a bare repository with one commit's objects and those of a few before. It is a cache: bounded
in number and bytes, made anew when it is damaged or worn, and locked while it is used, so that pushes of
one repository at once never mix. What is built is a tree of its own, checked against the commit.
"""

from __future__ import annotations

import hashlib
import heapq
import io
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NamedTuple

from filelock import FileLock, Timeout

from .fetch import Client
from .sdk.errors import Busy, Failed, TooLarge, Unavailable
from .sdk.settings import Settings

# A mirror that was fetched into this often is made anew: what old commits left behind goes.
_WORN_PACKS = 50
_NEW = "new-"
_KEPT = "refs/kept/last"
_LEFT_SECONDS = 3600
_LISTING_BYTES = 16 * 1024**2
_SHOWN_FILES = 5
_SUBMODULE_MODE, _LINK_MODE, _PROGRAM_MODE = "160000", "120000", "100755"
_KEPT = "refs/kept/last"
_BLOCK = 1024**2
_SHA1_LETTERS = 40
# The bytes of the tree are the commit's: no end of line, keyword or filter changes them.
_ATTRIBUTES = "* -text -eol -ident -filter -working-tree-encoding\n"


class File(NamedTuple):
    """A file of a commit; `mode` as git has it, `size` in bytes."""

    mode: str
    sha: str
    size: int
    path: str


@dataclass(frozen=True)
class Checkout:
    """A commit's tree in `folder`, without a `.git`; `submodules` maps a path to the commit it is at."""

    folder: Path
    files: Sequence[File]
    submodules: dict[str, str]


@dataclass(frozen=True)
class Mirrors:
    root: Path

    def checkout(self, client: Client, owner: str, sha: str, folder: Path, settings: Settings) -> Checkout:
        """Write the tree of the commit `sha` to the new folder `folder`.

        `owner` keeps apart whose mirrors must not meet. Raises `TooLarge`, `Failed` for a tree that git
        doesn't check out, and `Unavailable` with git's words for all else.
        """
        key = hashlib.sha256(f"{owner}\0{client.remote.url}".encode()).hexdigest()
        store = self.root / f"{key[:32]}.git"
        with self._locked(store, settings.fetch_timeout):
            found = self._from_kept(client, store, sha, folder, settings)
            if not found:
                found = self._anew(client, store, sha, folder, settings)
            store.touch()
        self._evict(store, settings)
        return found

    def _from_kept(
        self, client: Client, store: Path, sha: str, folder: Path, settings: Settings
    ) -> Checkout | None:
        """The checkout by the mirror that is there; None without one that can be used."""
        if not 0 < _packs(store) <= _WORN_PACKS or _bytes(store) > settings.repo_limit_mb * 1024**2:
            return None
        try:
            return _take(client, store, sha, folder, settings)
        except Unavailable:  # damaged, or the server is away: a new one will tell
            shutil.rmtree(folder, ignore_errors=True)
            return None
        except TooLarge:
            shutil.rmtree(store)  # with what git left of the attempt
            raise

    def _anew(self, client: Client, store: Path, sha: str, folder: Path, settings: Settings) -> Checkout:
        """The same by a new mirror; it takes the old one's place once it has worked."""
        with tempfile.TemporaryDirectory(dir=self.root, prefix=_NEW) as work:
            new = Path(work) / "mirror"
            new.mkdir()
            client.run("init", "--quiet", "--bare", "--template=", "--", str(new))
            (new / "info").mkdir()
            (new / "info" / "attributes").write_text(_ATTRIBUTES)
            found = _take(client, new, sha, folder, settings)
            shutil.rmtree(store, ignore_errors=True)
            new.rename(store)
        return found

    @contextmanager
    def _locked(self, store: Path, seconds: float) -> Iterator[None]:
        self.root.mkdir(parents=True, exist_ok=True)
        # A fixed number of lock files: one that is deleted while somebody waits for it locks nothing.
        lock = FileLock(self.root / f"{store.name[:2]}.lock", timeout=seconds)
        try:
            with lock:
                yield
        except Timeout:
            raise Busy("this repository is being fetched by other pushes") from None

    def _evict(self, used: Path, settings: Settings) -> None:
        """Delete the mirrors that were used longest ago until the rest is within its bounds."""
        for left in self.root.glob(f"{_NEW}*"):  # by a process that was killed
            if time.time() - _last_used(left) > _LEFT_SECONDS:
                shutil.rmtree(left, ignore_errors=True)
        mirrors = sorted(self.root.glob("*.git"), key=_last_used, reverse=True)
        total = 0
        for count, store in enumerate(mirrors, 1):
            total += _bytes(store)
            if store != used and (
                count > settings.mirrors_limit or total > settings.mirrors_limit_mb * 1024**2
            ):
                with suppress(Busy), self._locked(store, 0):
                    shutil.rmtree(store, ignore_errors=True)


def _take(client: Client, store: Path, sha: str, folder: Path, settings: Settings) -> Checkout:
    where = f"--git-dir={store}"
    if not _has(store, sha):
        refspec = f"+{sha}:{_KEPT}"
        client.run(where, "fetch", "--quiet", "--depth=1", "--no-tags", "--", client.remote.url, refspec)
    listing = client.run(where, "ls-tree", "-r", "-l", "-z", sha, most=_LISTING_BYTES)
    files = _listed(listing, client.remote.url)
    check_size(files, client.remote.url, settings)
    folder.mkdir(parents=True)
    with tempfile.TemporaryDirectory(prefix="index-") as indexes:
        _checked_out(client, (where, f"--work-tree={folder}"), sha, Path(indexes) / "index")
    for file in files:
        _check_written(folder, file)
    submodules = {file.path: file.sha for file in files if file.mode == _SUBMODULE_MODE}
    return Checkout(folder, [file for file in files if file.path not in submodules], submodules)


def _checked_out(client: Client, tree: Sequence[str], sha: str, index: Path) -> None:
    try:
        client.run(*tree, "read-tree", "--reset", "-u", sha, index=index)
    except Unavailable as error:
        # `.git` and its like, as any git refuses them, and what no file system takes
        if "invalid path" in error.message or "File name too long" in error.message:
            raise Failed(error.message) from None
        raise


def _has(store: Path, sha: str) -> bool:
    """Whether the commit was fetched last; damage shows in whatever comes next."""
    try:
        return (store / _KEPT).read_text().strip() == sha
    except OSError:
        return False


def _check_written(folder: Path, file: File) -> None:
    """Raise `Unavailable` unless what is on the disk is the commit's, kind and bytes."""
    path = os.path.join(folder, file.path)  # noqa: PTH118 - a path object of each file takes longer than its hash
    mode = os.lstat(path).st_mode
    if file.mode == _SUBMODULE_MODE:
        is_same = stat.S_ISDIR(mode)
    elif file.mode == _LINK_MODE:
        target = io.BytesIO(os.fsencode(os.readlink(path))) if stat.S_ISLNK(mode) else None  # noqa: PTH115
        is_same = target is not None and _blob(target, file) == file.sha
    else:
        is_kind = stat.S_ISREG(mode) and bool(mode & stat.S_IXUSR) == (file.mode == _PROGRAM_MODE)
        with open(path, "rb", buffering=0) as content:  # noqa: PTH123
            is_same = is_kind and _blob(content, file) == file.sha
    if not is_same:
        raise Unavailable(f"{file.path} was written, but is not what the commit has")


def _blob(content: IO[bytes], file: File) -> str:
    """The id that git gives to the content (https://git-scm.com/book/en/v2/Git-Internals-Git-Objects)."""
    hashed = hashlib.sha1(usedforsecurity=False) if len(file.sha) == _SHA1_LETTERS else hashlib.sha256()
    hashed.update(b"blob %d\0" % file.size)
    while piece := content.read(_BLOCK):
        hashed.update(piece)
    return hashed.hexdigest()


def _listed(text: str, url: str) -> Sequence[File]:
    """`git ls-tree -r -l -z`: `<mode> <type> <sha> <size>\\t<path>`, NUL after each."""
    if len(text.encode(errors="surrogateescape")) >= _LISTING_BYTES:
        raise TooLarge(f"{url}: the names of its files take more than {_LISTING_BYTES // 1024**2} MiB")
    rows = []
    for row in text.split("\0")[:-1]:
        said, _, path = row.partition("\t")
        mode, _, sha, size = said.split()
        rows.append(File(mode, sha, int(size) if size.isdigit() else 0, path))
    paths = {row.path for row in rows}
    if len(paths) < len(rows) or any(_parents(row.path) & paths for row in rows):
        # git checks out one of the two: what is listed would not be what is there.
        raise Failed(f"{url}: two things in its tree have one name")
    return rows


def _parents(path: str) -> set[str]:
    return {path[:at] for at, letter in enumerate(path) if letter == "/"}


def check_size(files: Sequence[File], url: str, settings: Settings) -> None:
    """Raise `TooLarge`, with the largest files, for a tree above `repo_limit_mb` or `repo_files_limit`."""
    if len(files) > settings.repo_files_limit:
        raise TooLarge(
            f"{url} has {len(files)} files, {settings.repo_files_limit} are allowed "
            "(setting repo_files_limit)"
        )
    total = sum(file.size for file in files)
    if total > settings.repo_limit_mb * 1024**2:
        largest = heapq.nlargest(_SHOWN_FILES, files, key=lambda file: file.size)
        shown = ", ".join(f"{file.path} ({file.size / 1024**2:.1f} MiB)" for file in largest)
        raise TooLarge(
            f"{url} has {total / 1024**2:.1f} MiB, {settings.repo_limit_mb} MiB are allowed "
            f"(setting repo_limit_mb); the largest: {shown}"
        )


def _packs(store: Path) -> int:
    return sum(1 for _ in store.glob("objects/pack/*.pack"))


def _last_used(store: Path) -> float:
    try:
        return store.stat().st_mtime
    except FileNotFoundError:
        return 0


def _bytes(store: Path) -> int:
    total = 0
    with suppress(FileNotFoundError):  # it is being removed
        for folder, _, names in os.walk(store / "objects"):
            total += sum(os.lstat(os.path.join(folder, name)).st_size for name in names)  # noqa: PTH118
    return total
