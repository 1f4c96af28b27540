"""Writes the folder of a running service to standard output as tar: `volume_reader.py FOLDER KIND`.

A backup sends this file into the platform's containers, which may be of an older checkout: it needs Python
alone. The service goes on writing meanwhile. What is written refers to what was there before it (a ref to
objects, a tag to blobs), so that is read last; and a folder is read until it shows nothing new: who packs
files up writes the pack before the files go.
"""

from __future__ import annotations

import os
import sqlite3
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_ROUNDS = 100
_LINK_BYTES = len("sha256:") + 64


class Plain:
    """What is read of a folder; paths are relative to it."""

    def is_left_out(self, path: Path) -> bool:
        return False

    def is_last(self, path: Path) -> bool:
        return False

    def is_whole(self, path: Path, size: int) -> bool:
        return True


class Git(Plain):
    """OWNER/NAME.git: without locks, and objects that are being written."""

    def is_left_out(self, path: Path) -> bool:
        of_objects = path.parts[2:3] == ("objects",)
        return (
            path.name.endswith(".lock")
            or path.name == "gc.pid"
            or (of_objects and path.name.startswith(("tmp_", "incoming-")))
        )

    def is_last(self, path: Path) -> bool:
        return path.parts[2:] == ("objects",)


class Registry(Plain):
    """Without uploads that go on. A link is a digest; one that is just being written is shorter."""

    def is_left_out(self, path: Path) -> bool:
        return path.name == "_uploads"

    def is_last(self, path: Path) -> bool:
        return path.parts == ("docker", "registry", "v2", "blobs")

    def is_whole(self, path: Path, size: int) -> bool:
        return path.name != "link" or size == _LINK_BYTES


class Databases(Plain):
    """SQLite copies its own: without what it keeps beside them."""

    def is_left_out(self, path: Path) -> bool:
        return path.name.endswith(("-wal", "-shm", "-journal"))


KINDS = {"plain": Plain(), "git": Git(), "registry": Registry(), "queue": Databases()}


def main(root: Path, kind: Plain) -> None:
    with tarfile.open(fileobj=sys.stdout.buffer, mode="w|") as tar:
        later: list[Path] = []
        for path in _paths(root, root, kind, later):
            _add(tar, path, root, kind)
        for folder in later:
            for path in _paths(folder, root, kind, []):
                _add(tar, path, root, kind)


def _paths(folder: Path, root: Path, kind: Plain, later: list[Path]) -> Iterator[Path]:
    """The folder's files and folders; what is to be read last is put aside in `later`."""
    yield folder
    seen: set[str] = set()
    for _ in range(_ROUNDS):
        try:
            new = sorted({path.name for path in folder.iterdir()} - seen)
        except FileNotFoundError:
            return
        if not new:
            return
        seen.update(new)
        for name in new:
            path, relative = folder / name, folder.relative_to(root) / name
            if kind.is_left_out(relative):
                continue
            if not path.is_dir():
                yield path
            elif kind.is_last(relative):
                later.append(path)
            else:
                yield from _paths(path, root, kind, later)
    sys.exit(f"{folder} changes faster than it can be read")


def _add(tar: tarfile.TarFile, path: Path, root: Path, kind: Plain) -> None:
    relative = path.relative_to(root)
    if path.is_symlink():
        sys.exit(f"{path} is a link: a backup has none")
    if isinstance(kind, Databases) and path.suffix == ".db":
        with tempfile.TemporaryDirectory() as work:
            copy = Path(work) / "copy.db"
            _copy_database(path, copy)
            _add_file(tar, copy, relative, kind)
    elif path.is_dir():
        with suppress(FileNotFoundError):
            info = tar.gettarinfo(str(path), str(relative))
            info.mtime = int(info.mtime)
            tar.addfile(info)
    else:
        _add_file(tar, path, relative, kind)


def _add_file(tar: tarfile.TarFile, path: Path, relative: Path, kind: Plain) -> None:
    try:
        with path.open("rb") as file:
            info = tar.gettarinfo(arcname=str(relative), fileobj=file)
            info.type, info.linkname, info.mtime = tarfile.REGTYPE, "", int(info.mtime)
            info.size = os.fstat(file.fileno()).st_size  # of a second hard link, tarfile says 0
            if kind.is_whole(relative, info.size):
                tar.addfile(info, file)
    except FileNotFoundError:  # it went, or was packed up: the pack comes
        return


def _copy_database(path: Path, copy: Path) -> None:
    source, target = sqlite3.connect(path, timeout=30), sqlite3.connect(copy)
    try:
        source.backup(target)
    finally:
        source.close()
        target.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), KINDS[sys.argv[2]])
