"""Submodules, with real repositories."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from git_tar.fetch import Client, Remote
from git_tar.mirrors import Checkout, Mirrors
from git_tar.sdk.errors import Failed, Refused, TooLarge
from git_tar.sdk.settings import Settings
from git_tar.submodules import Submodules
from tests.repositories import Origin


class Project:
    """A repository `main` beside repositories that it has as submodules."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.settings = Settings(allowed_git_hosts=(f"file://{folder}/",))
        self.mirrors = Mirrors(folder / "mirrors")
        self.main = Origin(folder / "main")

    def add(self, path: str, sha: str, url: str, origin: Origin | None = None) -> Mapping[str, str]:
        """Make `path` a submodule; returns the `.gitmodules` to commit."""
        origin = origin or self.main
        origin.git("update-index", "--add", "--cacheinfo", f"160000,{sha},{path}")
        (origin.work / path).mkdir(parents=True)
        file = origin.work / ".gitmodules"
        before = file.read_text() if file.exists() else ""
        return {".gitmodules": f'{before}[submodule "the.{path}"]\n\tpath = {path}\n\turl = {url}\n'}

    def fill(self, sha: str, seconds: float = 60) -> tuple[Checkout, list[str]]:
        client = Client(Remote(self.main.url), 30, 100)
        checkout = self.mirrors.checkout(client, "local/1", sha, self.folder / "tree", self.settings)
        deadline = time.monotonic() + seconds
        filled = Submodules(self.mirrors, "local/1", self.settings, deadline).fill(checkout, client)
        return checkout, [str(inner.folder.relative_to(checkout.folder)) for inner in filled]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def test_submodules_are_filled_at_their_commit_also_nested_and_relative(project: Project) -> None:
    leaf, lib = Origin(project.folder / "leaf"), Origin(project.folder / "lib")
    old = leaf.commit({"leaf.py": "old"})
    leaf.commit({"leaf.py": "new"})
    inner = lib.commit({"lib.py": "1", **project.add("deps/leaf", old, leaf.url, lib)})
    sha = project.main.commit(dict(project.add("vendor/lib", inner, "../../lib/origin.git")))
    checkout, filled = project.fill(sha)
    assert filled == ["vendor/lib", "vendor/lib/deps/leaf"]
    assert (checkout.folder / "vendor" / "lib" / "lib.py").read_text() == "1"
    assert (checkout.folder / "vendor" / "lib" / "deps" / "leaf" / "leaf.py").read_text() == "old"
    assert not list(checkout.folder.rglob(".git"))


@pytest.mark.parametrize(
    "url", ["ext::sh -c touch% pwned", "file:///etc", "--upload-pack=id", "https://u:p@h/x"]
)
def test_a_url_outside_the_allowed_origins_is_refused(url: str, project: Project) -> None:
    sha = project.main.commit(dict(project.add("sub", "1" * 40, url)))
    with pytest.raises(Refused, match="clone URL"):
        project.fill(sha)


def test_a_submodule_without_a_url_fails(project: Project) -> None:
    project.add("sub", "1" * 40, "")
    with pytest.raises(Failed, match=r"submodule sub has no URL in \.gitmodules"):
        project.fill(project.main.commit({}))


def test_a_repository_that_holds_itself_ends(project: Project) -> None:
    sha = project.main.commit({"a": "1"})
    for _ in range(25):
        sha = project.main.commit(dict(project.add("self", sha, project.main.url)))
        (project.main.work / ".gitmodules").unlink()
        (project.main.work / "self").rmdir()
    with pytest.raises(Failed, match="more than 20 submodules, nested ones included"):
        project.fill(sha)


def test_submodules_share_the_limits_of_one_repository(project: Project) -> None:
    project.settings = replace(project.settings, repo_limit_mb=2)
    (project.main.work / "large").write_bytes(os.urandom(1_500_000))
    lib = Origin(project.folder / "lib")
    (lib.work / "large").write_bytes(os.urandom(1_500_000))
    sha = project.main.commit(dict(project.add("lib", lib.commit({}), lib.url)))
    with pytest.raises(TooLarge, match=r"with its submodules has 2\.9 MiB, 2 MiB are allowed"):
        project.fill(sha)


@pytest.mark.parametrize("text", ["", "[submodule", "[other]\n\tpath = sub\n"])
def test_a_file_of_submodules_that_is_none_fails(text: str, project: Project) -> None:
    project.add("sub", "1" * 40, "")
    with pytest.raises(Failed, match=r"\.gitmodules can't be read, or names no submodule"):
        project.fill(project.main.commit({".gitmodules": text}))


def test_submodules_that_take_too_long_fail(project: Project) -> None:
    sha = project.main.commit(dict(project.add("sub", "1" * 40, project.main.url)))
    with pytest.raises(Failed, match="takes too long"):
        project.fill(sha, seconds=-1)
