"""Real git repositories for tests: a bare one, and a work tree that pushes to it."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

MASTER = "refs/heads/master"
_AUTHOR = ("-c", "user.name=author", "-c", "user.email=author@example.com", "-c", "commit.gpgsign=false")


class Origin:
    """`bare` plays the server, by a file URL; `work` is the author's."""

    def __init__(self, folder: Path) -> None:
        self.bare, self.work = folder / "origin.git", folder / "work"
        self.url = f"file://{self.bare}"
        self._run("git", "init", "--quiet", "--bare", "--initial-branch=master", str(self.bare))
        self._run("git", "init", "--quiet", "--initial-branch=master", str(self.work))

    def git(self, *arguments: str) -> str:
        return self._run("git", "-C", str(self.work), *arguments)

    def write(self, files: Mapping[str, str]) -> None:
        for name, text in files.items():
            path = self.work / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    def commit(self, files: Mapping[str, str], ref: str = MASTER) -> str:
        """Commit everything and push it to `ref`; returns the commit."""
        self.write(files)
        self.git("add", "--all")
        self.git(*_AUTHOR, "commit", "--quiet", "--allow-empty", "--message", "x")
        self.git("push", "--quiet", "--force", self.url, f"HEAD:{ref}")
        return self.git("rev-parse", "HEAD")

    def delete(self, ref: str) -> None:
        self._run("git", f"--git-dir={self.bare}", "update-ref", "-d", ref)

    def _run(self, *command: str) -> str:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
