"""Bare repositories, made by their first push, with the ids that GitHub would give them."""

from __future__ import annotations

import hashlib
import re
import secrets
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/srv/git")
# Whose repositories are made by this server itself: nobody pushes to them.
PLATFORM = "openfaas-cloud"
_NAME = r"/(?P<owner>[a-z0-9](?:[a-z0-9-]{0,37}[a-z0-9])?)/(?P<name>[A-Za-z0-9_][A-Za-z0-9._-]{0,99})\.git"
_PATH = re.compile(_NAME + r"/(?:info/refs|git-receive-pack)")
_COMMIT = re.compile(r"[0-9a-f]{7,40}")
_ID_BITS = 40


@dataclass(frozen=True)
class BareRepository:
    """`/srv/git/<owner>/<name>.git`; its id stays as long as the folder does."""

    owner: str
    name: str
    folder: Path

    @classmethod
    def at(cls, folder: Path) -> BareRepository:
        return cls(folder.parent.name, folder.name.removesuffix(".git"), folder)

    @property
    def full_name(self) -> str:
        return f"{self.owner}/{self.name}"

    @property
    def owner_id(self) -> int:
        return owner_id(self.owner)

    @property
    def id(self) -> int:
        return int(self.git("config", "cloud.id"))

    def create(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.git("init", "--quiet", "--bare", "--initial-branch=master")
        self.git("config", "cloud.id", str(secrets.randbits(_ID_BITS)))

    def git(self, *arguments: str) -> str:
        """What git prints; `CalledProcessError` when it fails."""
        done = self._run(arguments)
        done.check_returncode()
        return done.stdout.strip()

    def commit(self, name: str) -> str:
        """The whole name of a commit, by 7 signs of it or more; empty if none is there, or several are."""
        if not _COMMIT.fullmatch(name):
            return ""
        found = self._run(("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}")).stdout.strip()
        return found if found.startswith(name) else ""  # a branch may be called as a commit is

    def is_ancestor(self, older: str, newer: str) -> bool:
        return self._run(("merge-base", "--is-ancestor", older, newer)).returncode == 0

    def _run(self, arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
        command = ("git", f"--git-dir={self.folder}", *arguments)
        return subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=60)


def owner_id(login: str) -> int:
    """The same number for the same login, on every machine."""
    return int.from_bytes(hashlib.sha256(login.lower().encode()).digest()[: _ID_BITS // 8], "big")


def repositories(root: Path) -> Iterator[BareRepository]:
    """Those of authors."""
    for folder in sorted(root.glob("*/*.git")):
        if folder.parent.name != PLATFORM:
            yield BareRepository.at(folder)


def find(owner: str, name: str, root: Path) -> BareRepository | None:
    """An author's repository that is there."""
    if owner == PLATFORM or not re.fullmatch(_NAME, f"/{owner}/{name}.git"):
        return None
    repository = BareRepository.at(root / owner / f"{name}.git")
    return repository if (repository.folder / "HEAD").exists() else None


def ensure(path_info: str, root: Path = ROOT) -> BareRepository:
    """The repository that a push's path names, made if need be; `ValueError` for another path."""
    match = _PATH.fullmatch(path_info)
    if not match or match["owner"] == PLATFORM:
        raise ValueError("push to OWNER/NAME.git, OWNER being of a-z, 0-9 and dashes")
    repository = BareRepository(match["owner"], match["name"], root / match["owner"] / f"{match['name']}.git")
    if not (repository.folder / "HEAD").exists():
        repository.create()
    return repository


if __name__ == "__main__":
    try:
        ensure(sys.argv[1])
    except ValueError as problem:
        sys.exit(str(problem))
