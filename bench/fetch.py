"""git-tar's fetch into its mirror, beside git by hand into a shallow one."""

from __future__ import annotations

import random
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import requests

from git_tar.fetch import Client, Remote
from git_tar.mirrors import Mirrors
from git_tar.sdk.settings import Settings

from . import served
from .measure import QUICK_REPEAT, Measure, Samples, interleaved, seconds
from .repositories import committed, git

_COMMITS, _FILES, _FILE_BYTES = 2000, 100, 50 * 1024


@dataclass
class Large:
    """A repository with much history behind git's own server, and two mirrors of it: ours, one by hand."""

    work: Path
    port: int
    commits: int = _COMMITS
    _random: random.Random = field(default_factory=lambda: random.Random(7))  # noqa: S311
    _changes: int = 0

    def __post_init__(self) -> None:
        git("init", "--quiet", "--bare", "--initial-branch=master", self.origin)
        git(f"--git-dir={self.origin}", "config", "uploadpack.allowAnySHA1InWant", "true")
        self.sha = committed(self.origin, (self._change() for _ in range(self.commits)))
        git("init", "--quiet", "--bare", self._mirror)
        self._mirrors = Mirrors(self.work / "mirrors")

    @property
    def origin(self) -> Path:
        return self.work / "repositories" / "large.git"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/git/large.git"

    @property
    def _mirror(self) -> Path:
        return self.work / "by-hand.git"

    def push(self) -> None:
        """One file is changed."""
        self.sha = committed(self.origin, [self._change()])

    def ours(self) -> None:
        """The commit's tree, checked, as git-tar's stage `fetch` does it."""
        settings, tree = Settings(), self.work / "ours"
        client = Client(Remote(self.url), settings.fetch_timeout, settings.repo_limit_mb)
        self._mirrors.checkout(client, "bench", self.sha, tree, settings)

    def by_hand(self) -> None:
        """The commit's tree, by two calls of git."""
        where, tree = f"--git-dir={self._mirror}", self.work / "floor"
        git(where, "fetch", "--quiet", "--depth=1", "--no-tags", self.url, f"+{self.sha}:refs/heads/last")
        tree.mkdir()
        git(where, f"--work-tree={tree}", "read-tree", "--reset", "-u", self.sha)

    def clone(self) -> None:
        git("clone", "--quiet", "--bare", self.url, self.work / "clone")

    def counted(self) -> int:
        """What the server has sent and got so far, in bytes."""
        told: int = requests.get(f"http://127.0.0.1:{self.port}/bench/bytes", timeout=10).json()
        return told

    def tidy(self) -> None:
        for name in ("ours", "floor", "clone", "by-hand.git/index"):
            path = self.work / name
            path.unlink() if path.is_file() else shutil.rmtree(path, ignore_errors=True)

    def _change(self) -> dict[str, bytes]:
        self._changes += 1
        return {f"data/{self._changes % _FILES}.bin": self._random.randbytes(_FILE_BYTES)}


@contextmanager
def large(commits: int = _COMMITS) -> Iterator[Large]:
    with tempfile.TemporaryDirectory(prefix="bench-fetch-") as folder:
        port, repositories = served.free_port(), Path(folder) / "repositories"
        repositories.mkdir()
        command = ("-m", "bench.neighbour", str(port), str(repositories))
        with served.program(command, port, {"TMPDIR": folder}):
            yield Large(Path(folder), port, commits)


def _fetch(repeat: int) -> Samples:
    """A push after the first one: what both mirrors have is the commit before."""
    with large() as repo:

        def ours() -> float:
            repo.tidy()
            repo.push()
            return seconds(repo.ours)

        return interleaved(repeat, ours, lambda: seconds(repo.by_hand))


def _bytes(repeat: int) -> Samples:
    with large() as repo:

        def moved(work: str) -> float:
            before = repo.counted()
            getattr(repo, work)()
            return (repo.counted() - before) / 1024

        def ours() -> float:
            repo.tidy()
            repo.push()
            return moved("ours")

        return interleaved(repeat, ours, lambda: moved("clone"))


_SIZE = f"a repository of {_COMMITS:,} commits and {_COMMITS * _FILE_BYTES // 1000**2} MB"
MEASURES = (
    Measure(
        "fetch_large",
        f"{_SIZE}, a further push: its tree, checked",
        "git fetch --depth=1 into a shallow mirror, then the tree",
        "s",
        1.2,
        _fetch,
        repeat=QUICK_REPEAT,
    ),
    Measure("fetch_large_bytes", "the same, on the wire", "a full clone", "KiB", 0.01, _bytes),
)
