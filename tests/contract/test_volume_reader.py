"""What a backup reads of a service that goes on writing: real git, real SQLite, the registry's files."""

from __future__ import annotations

import io
import sqlite3
import subprocess
import sys
import tarfile
import threading
from collections.abc import Mapping
from pathlib import Path

import pytest

from local import volume_reader

DIGEST = b"sha256:" + 64 * b"a"


def read(folder: Path, kind: str) -> Mapping[str, bytes]:
    """The files that it writes to its output, by path."""
    command = (sys.executable, volume_reader.__file__, str(folder), kind)
    done = subprocess.run(command, capture_output=True, check=True, timeout=60)
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar if member.isreg()}  # type: ignore[union-attr]


def write(folder: Path, files: Mapping[str, bytes]) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.com")
    command = ("git", "-C", str(folder), *identity, *arguments)
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout.strip()


def test_a_repository_is_whole_though_it_is_pushed_to_and_packed_meanwhile(tmp_path: Path) -> None:
    bare, work = tmp_path / "srv" / "alice" / "repo.git", tmp_path / "work"
    subprocess.run(("git", "init", "-q", "--bare", str(bare)), check=True)
    subprocess.run(("git", "init", "-q", "-b", "master", str(work)), check=True)

    def push(number: int) -> None:
        (work / f"file{number}").write_text(str(number) * 100)
        git(work, "add", "--all")
        git(work, "commit", "-qm", f"{number}")
        git(work, "push", "-q", str(bare), "master")

    push(0)
    done = threading.Event()

    def busy() -> None:
        number = 0
        while not done.is_set():
            number += 1
            push(number)
            if number % 3 == 0:
                git(bare, "gc", "-q", "--prune=now")

    author = threading.Thread(target=busy)
    author.start()
    try:
        for attempt in range(8):
            copy = tmp_path / f"copy{attempt}"
            write(copy, read(tmp_path / "srv", "git"))
            folder = copy / "alice" / "repo.git"
            (folder / "refs").mkdir(exist_ok=True)
            assert "missing" not in git(folder, "fsck", "--connectivity-only", "--no-dangling")
            assert git(folder, "rev-parse", "refs/heads/master")
    finally:
        done.set()
        author.join()


def test_what_goes_while_it_is_read_has_been_packed_up_elsewhere(tmp_path: Path) -> None:
    packs = tmp_path / "alice" / "a.git" / "objects" / "pack"
    write(packs, {"0.pack": bytes(1024**2), "1.pack": b"old"})
    with subprocess.Popen(
        (sys.executable, volume_reader.__file__, str(tmp_path), "git"), stdout=subprocess.PIPE
    ) as reader:
        assert reader.stdout
        start = reader.stdout.read(100_000)  # it has seen the folder, and can't go on with the first file
        write(packs, {"2.pack": b"new"})
        (packs / "1.pack").unlink()
        whole = start + reader.stdout.read()
    assert reader.returncode == 0
    with tarfile.open(fileobj=io.BytesIO(whole)) as tar:
        assert [Path(member.name).name for member in tar if member.isreg()] == ["0.pack", "2.pack"]


def test_of_git_only_what_nobody_refers_to_is_left_out(tmp_path: Path) -> None:
    kept = {
        "alice/tmp_x.git/HEAD": b"1",
        "alice/a.git/refs/heads/link": b"2",
        "alice/a.git/refs/heads/tmp_x": b"3",
        "alice/a.git/refs/heads/objects/_uploads": b"4",
        "alice/a.git/refs/heads/x.db": b"5",
        "alice/a.git/objects/pack/pack-1.pack": b"6",
    }
    gone = {
        "alice/a.git/refs/heads/master.lock": b"",
        "alice/a.git/gc.pid": b"",
        "alice/a.git/objects/pack/tmp_pack_x": b"",
        "alice/a.git/objects/tmp_objdir-incoming-x/aa/b": b"",
    }
    write(tmp_path, {**kept, **gone})
    assert read(tmp_path, "git") == kept


def test_objects_and_blobs_are_read_last(tmp_path: Path) -> None:
    repositories = "docker/registry/v2/repositories"
    write(tmp_path, {"docker/registry/v2/blobs/data": b"1", f"{repositories}/a/_manifests/link": DIGEST})
    assert list(read(tmp_path, "registry")) == [
        f"{repositories}/a/_manifests/link",
        "docker/registry/v2/blobs/data",
    ]
    write(tmp_path, {"git/a/b.git/objects/aa/bb": b"1", "git/a/b.git/refs/heads/master": b"2"})
    assert list(read(tmp_path / "git", "git"))[-1] == "a/b.git/objects/aa/bb"


def test_of_the_registry_uploads_and_half_written_links_are_left_out(tmp_path: Path) -> None:
    top = "docker/registry/v2/repositories/local/1/2/link"
    kept = {f"{top}/_manifests/tags/latest/current/link": DIGEST}
    gone = {f"{top}/_manifests/tags/new/current/link": b"sha2", f"{top}/_uploads/1/data": b"1"}
    write(tmp_path, {**kept, **gone})
    assert read(tmp_path, "registry") == kept


def test_a_database_is_copied_with_what_is_not_yet_in_its_file(tmp_path: Path) -> None:
    (tmp_path / "queue").mkdir()
    database = sqlite3.connect(tmp_path / "queue" / "data.db")
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("CREATE TABLE calls (body)")
    database.executemany("INSERT INTO calls VALUES (?)", [("x",)] * 50)
    database.commit()
    files = read(tmp_path, "queue")
    database.close()
    assert list(files) == ["queue/data.db"]
    (tmp_path / "copy.db").write_bytes(files["queue/data.db"])
    copy = sqlite3.connect(tmp_path / "copy.db")
    assert copy.execute("SELECT count(*) FROM calls").fetchone() == (50,)
    copy.close()


def test_a_link_is_told(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("/etc/passwd")
    with pytest.raises(subprocess.CalledProcessError) as caught:
        read(tmp_path, "plain")
    assert b"a backup has none" in caught.value.stderr
