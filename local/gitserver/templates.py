"""Serves our own templates as a repository, which git-tar takes as a template source."""

from __future__ import annotations

import os
from pathlib import Path

from .repository import PLATFORM, ROOT, BareRepository

NAME = "templates"
FOLDER = Path("/app/templates")
BRANCH = "refs/heads/master"
# The same files give the same commit, so that a restart changes nothing.
_AUTHOR = {
    f"GIT_{who}_{what}": value
    for who in ("AUTHOR", "COMMITTER")
    for what, value in (("NAME", PLATFORM), ("EMAIL", f"{PLATFORM}@localhost"), ("DATE", "@0 +0000"))
}


def main() -> None:
    """Commit what is in FOLDER, unless it is committed already."""
    repository = BareRepository.at(ROOT / PLATFORM / f"{NAME}.git")
    if not (repository.folder / "HEAD").exists():
        repository.create()
    os.environ.update(_AUTHOR)
    repository.git(f"--work-tree={FOLDER}", "add", "--all", "--force", "--", ".")
    commit = repository.git("commit-tree", repository.git("write-tree"), "-m", "Templates")
    repository.git("update-ref", BRANCH, commit)


if __name__ == "__main__":
    main()
