"""git-tar's git, with real repositories."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from git_tar import fetch
from git_tar.sdk.errors import Refused, Unavailable
from tests.repositories import MASTER, Origin

SECONDS = 30


@pytest.fixture
def origin(tmp_path: Path) -> Origin:
    return Origin(tmp_path)


def test_the_head_is_that_of_exactly_the_ref(origin: Origin) -> None:
    sha = origin.commit({"a": "1"})
    decoy = origin.commit({"a": "2"}, "refs/heads/refs/heads/master")
    other = origin.commit({"a": "3"}, "refs/heads/x/refs/heads/master")
    assert fetch.head(origin.url, MASTER, seconds=SECONDS) == sha
    assert sha not in (decoy, other)


def test_a_ref_that_only_ends_in_the_name_is_not_the_branch(origin: Origin) -> None:
    origin.commit({"a": "1"}, "refs/heads/refs/heads/master")
    assert fetch.head(origin.url, MASTER, seconds=SECONDS) is None


def test_head_itself_can_be_asked_for(origin: Origin) -> None:
    sha = origin.commit({"a": "1"})
    assert fetch.head(origin.url, "HEAD", seconds=SECONDS) == sha


def test_the_tree_is_the_commits_also_after_the_branch_has_moved(origin: Origin, tmp_path: Path) -> None:
    """Flaw 9: the branch's tip was built and labelled with the pushed SHA."""
    first = origin.commit({"a": "1", "dir/run.sh": "#!/bin/sh\n"})
    (origin.work / "dir" / "run.sh").chmod(0o755)
    second = origin.commit({"a": "2"})
    one = fetch.checkout(origin.url, first, tmp_path / "one", seconds=SECONDS)
    two = fetch.checkout(origin.url, second, tmp_path / "two", seconds=SECONDS)
    assert ((one / "a").read_text(), (two / "a").read_text()) == ("1", "2")
    assert (two / "dir" / "run.sh").stat().st_mode & 0o111


def test_only_the_one_commit_is_fetched(origin: Origin, tmp_path: Path) -> None:
    """Flaw 19: the full history was cloned."""
    for number in range(3):
        sha = origin.commit({"a": str(number)})
    fetch.checkout(origin.url, sha, tmp_path / "w", seconds=SECONDS)
    listed = subprocess.run(
        ["git", f"--git-dir={tmp_path / 'w' / 'git'}", "rev-list", "--all", "HEAD"],
        check=True,
        capture_output=True,
        text=True,
    )
    assert listed.stdout.split() == [sha]


def test_the_tree_has_no_git_folder_to_copy_into_an_image(origin: Origin, tmp_path: Path) -> None:
    """Flaw 2: `handler: .` copied .git/config, with the clone token, into the image."""
    sha = origin.commit({"a": "1"})
    tree = fetch.checkout(origin.url, sha, tmp_path / "w", seconds=SECONDS)
    assert [path.name for path in tree.iterdir()] == ["a"]


def test_a_commit_that_is_not_there_fails(origin: Origin, tmp_path: Path) -> None:
    """Flaw 9: errors of clone and checkout were ignored."""
    origin.commit({"a": "1"})
    with pytest.raises(Unavailable, match="git fetch"):
        fetch.checkout(origin.url, "1" * 40, tmp_path / "w", seconds=SECONDS)


def test_a_server_that_is_not_there_is_unavailable() -> None:
    with pytest.raises(Unavailable, match="git ls-remote"):
        fetch.head("http://127.0.0.1:9/a/b.git", MASTER, seconds=SECONDS)


def test_hooks_and_configuration_of_the_machine_are_not_used(
    origin: Origin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sha = origin.commit({"a": "1"})
    (tmp_path / ".gitconfig").write_text(f"[core]\n\thooksPath = {tmp_path}/hooks\n")
    (tmp_path / "hooks").mkdir()
    hook = tmp_path / "hooks" / "post-checkout"
    hook.write_text(f"#!/bin/sh\ntouch {tmp_path}/hooked\n")
    hook.chmod(0o755)
    monkeypatch.setenv("HOME", str(tmp_path))
    fetch.checkout(origin.url, sha, tmp_path / "w", seconds=SECONDS)
    assert not (tmp_path / "hooked").exists()


def test_a_link_stays_a_link_and_a_submodule_is_not_fetched(origin: Origin, tmp_path: Path) -> None:
    (origin.work / "leak").symlink_to("/etc/passwd")
    sha = origin.commit(
        {".gitmodules": '[submodule "s"]\n\tpath = s\n\turl = ext::sh -c touch% /tmp/pwned\n'}
    )
    tree = fetch.checkout(origin.url, sha, tmp_path / "w", seconds=SECONDS)
    assert (tree / "leak").is_symlink()
    assert not (tree / "s").exists()


ALLOWED = ("https://github.com", "http://git-server:8080/teams")


@pytest.mark.parametrize(
    "url", ["https://github.com/alice/hello.git", "http://git-server:8080/teams/a/b.git"]
)
def test_an_allowed_origin_passes(url: str) -> None:
    fetch.check_url(url, ALLOWED)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "https://github.com",
        "https://github.com.evil.example/a/b.git",
        "https://evil.example/https://github.com/a/b.git",
        "https://user:token@github.com/a/b.git",
        "http://github.com/a/b.git",
        "http://git-server:8080/teams/../admin/b.git",
        "http://git-server:8080/teamsters/b.git",
        "ext::sh -c id",
        "file:///etc",
        "--upload-pack=id",
        "https://github.com/a b.git",
        "https://github.com/a/b.git#x",
        "https://github.com\\@evil.example/a",
    ],
)
def test_every_other_url_is_refused(url: str) -> None:
    with pytest.raises(Refused, match="clone URL"):
        fetch.check_url(url, ALLOWED)


@given(st.text())
def test_any_text_is_checked_without_another_error(url: str) -> None:
    try:
        fetch.check_url(url, ALLOWED)
    except Refused:
        return
    assert url.startswith(ALLOWED)
