"""git-tar on a disk that is full: whatever it did, the push is tried again, and the operator is told."""

from __future__ import annotations

import errno
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import git_tar.handler
from git_tar import disk
from git_tar.mirrors import Mirrors
from git_tar.sdk.errors import Unavailable

from .test_pipeline import Cloud, cloud, files, stages

__all__ = ["cloud"]  # a fixture

SAID = "is full: make room there, or lower the setting mirrors_limit_mb"


def mounted(folder: Path, options: str) -> bool:
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


@pytest.fixture
def resize(cloud: Cloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Lets git-tar work on a disk of its own: an empty one, as large as it is told to be."""
    small = tmp_path / "small"
    small.mkdir()
    if os.geteuid() or not mounted(small, "size=1m"):
        pytest.skip("it takes root, and a kernel that lets it mount")
    mirrors = Mirrors(small / "mirrors")
    monkeypatch.setattr(git_tar.handler, "MIRRORS", mirrors)
    monkeypatch.setattr("tempfile.tempdir", str(small))

    def to(options: str) -> None:
        subprocess.run(["umount", str(small)], check=True)
        assert mounted(small, options)

    yield to
    subprocess.run(["umount", str(small)], check=True)


def test_wherever_it_ends_a_push_goes_on_once_there_is_room(
    cloud: Cloud, resize: Callable[[str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    (cloud.origin.work / "one").mkdir()
    (cloud.origin.work / "one" / "large").write_bytes(os.urandom(100_000))
    sha = cloud.origin.commit(files("one"))
    sizes = [f"size=4m,nr_inodes={number}" for number in range(2, 40, 4)]
    sizes += [f"size={number}k" for number in range(4, 400, 32)]
    for size in sizes:
        resize(size)
        status, answer = cloud.push(sha)
        if status == 200:  # there was room
            continue
        assert (status, answer["error"]["code"]) == (503, "unavailable"), (size, answer)
        assert SAID in answer["error"]["message"], size
    told = {(record.stage, record.outcome) for record in stages(capsys)}
    assert {("fetch", "retry"), ("shrinkwrap", "retry"), ("push", "retry")} <= told
    assert not {outcome for stage, outcome in told} & {"failed", "refused"}
    resize("size=4m")
    assert cloud.push(sha)[0] == 200
    assert set(cloud.live) == {"alice-one"}


PLACES = [
    "tempfile.TemporaryDirectory",
    "git_tar.mirrors.FileLock",
    "git_tar.mirrors._take",
    "git_tar.sources.templates.languages",
    "git_tar.contexts.plan",
    "git_tar.contexts.write_tar",
]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("place", PLACES)
def test_no_room_is_no_end_of_a_push(
    place: str, number: int, cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    sha = cloud.origin.commit(files("one"))

    def refuse(*arguments: Any, **named: Any) -> None:
        raise OSError(number, os.strerror(number), "/a/file")

    with monkeypatch.context() as here:
        here.setattr(place, refuse)
        status, answer = cloud.push(sha)
    assert (status, answer["error"]["code"]) == (503, "unavailable")
    assert SAID in answer["error"]["message"]
    assert tempfile.gettempdir() in answer["error"]["message"]
    assert cloud.push(sha)[0] == 200


def test_what_a_tar_took_of_the_disk_is_given_back_at_once(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("parallel_functions", "1")
    sha, left = cloud.origin.commit(files("one", "two")), list[Path]()
    work = Path(tempfile.gettempdir())

    def refuse(*arguments: Any) -> None:
        left.extend(work.glob("*/*.tar"))
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("git_tar.sdk.context._Out.add", refuse)
    assert cloud.push(sha)[0] == 503
    assert sorted(path.name for path in left) == ["one.tar", "two.tar"], "each is alone"


def test_another_error_of_the_system_is_not_the_disks() -> None:
    for raised in (PermissionError(errno.EACCES, "no"), OSError("of no number")):
        with pytest.raises(OSError, match="no") as caught, disk.checked():
            raise raised
        assert caught.value is raised
    with pytest.raises(Unavailable, match="is full"), disk.checked():
        raise OSError(errno.ENOSPC, "x")
