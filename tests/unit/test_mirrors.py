"""git-tar's shallow mirrors, with real repositories."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from git_tar import mirrors
from git_tar.fetch import Client, Remote
from git_tar.mirrors import Checkout, Mirrors
from git_tar.sdk.errors import Busy, Failed, TooLarge, Unavailable
from git_tar.sdk.settings import Seconds, Settings
from tests.repositories import Origin


@dataclass
class Fetcher:
    """Checks commits of one origin out into folders of their own."""

    folder: Path
    origin: Origin
    mirrors: Mirrors
    settings: Settings = Settings(fetch_timeout=Seconds(30))
    count: int = 0

    def checkout(self, sha: str, owner: str = "local/1") -> Checkout:
        self.count += 1
        client = Client(Remote(self.origin.url), self.settings.fetch_timeout, self.settings.repo_limit_mb)
        tree = self.folder / f"tree-{self.count}-{threading.get_ident()}"
        return self.mirrors.checkout(client, owner, sha, tree, self.settings)

    @property
    def stores(self) -> list[Path]:
        return sorted(self.mirrors.root.glob("*.git"))

    @property
    def packs(self) -> list[Path]:
        return sorted(self.mirrors.root.glob("*.git/objects/pack/*.pack"))


@pytest.fixture
def fetcher(tmp_path: Path) -> Iterator[Fetcher]:
    found = Fetcher(tmp_path, Origin(tmp_path), Mirrors(tmp_path / "mirrors"))
    yield found
    assert not list(found.mirrors.root.glob("new-*"))


def test_the_tree_is_the_commits_also_after_the_branch_has_moved(fetcher: Fetcher) -> None:
    """Flaw 9: the branch's tip was built and labelled with the pushed SHA."""
    first = fetcher.origin.commit({"a": "1", "dir/run.sh": "#!/bin/sh\n"})
    (fetcher.origin.work / "dir" / "run.sh").chmod(0o755)
    second = fetcher.origin.commit({"a": "2"})
    one, two = fetcher.checkout(first).folder, fetcher.checkout(second).folder
    assert ((one / "a").read_text(), (two / "a").read_text()) == ("1", "2")
    assert not (one / "dir" / "run.sh").stat().st_mode & 0o111
    assert (two / "dir" / "run.sh").stat().st_mode & 0o111


def test_only_the_one_commit_is_fetched(fetcher: Fetcher) -> None:
    """Flaw 19: the full history was cloned."""
    for number in range(3):
        sha = fetcher.origin.commit({"a": str(number)})
    fetcher.checkout(sha)
    [store] = fetcher.stores
    listed = subprocess.run(
        ["git", f"--git-dir={store}", "rev-list", "--all"], check=True, capture_output=True, text=True
    )
    assert listed.stdout.split() == [sha]


def test_a_second_push_moves_only_what_changed(fetcher: Fetcher) -> None:
    (fetcher.origin.work / "large").write_bytes(os.urandom(1_000_000))
    fetcher.checkout(fetcher.origin.commit({"a": "1"}))
    before = set(fetcher.packs)
    again = fetcher.checkout(fetcher.origin.commit({"a": "2"}))
    [new] = set(fetcher.packs) - before
    assert new.stat().st_size < 2_000
    assert (again.folder / "large").stat().st_size == 1_000_000


def test_a_commit_that_is_there_is_not_asked_for(fetcher: Fetcher) -> None:
    sha = fetcher.origin.commit({"a": "1"})
    fetcher.checkout(sha)
    fetcher.origin.bare.rename(fetcher.origin.bare.with_suffix(".away"))
    assert (fetcher.checkout(sha).folder / "a").read_text() == "1"


def test_the_tree_has_no_git_folder_to_copy_into_an_image(fetcher: Fetcher) -> None:
    """Flaw 2: `handler: .` copied .git/config, with the clone token, into the image."""
    tree = fetcher.checkout(fetcher.origin.commit({"a": "1"})).folder
    assert [path.name for path in tree.iterdir()] == ["a"]


def test_the_bytes_are_the_commits_whatever_its_attributes_say(fetcher: Fetcher) -> None:
    fetcher.origin.commit({"a": "$Id$\n", "utf": "x\n"})
    attributes = "* text=auto eol=crlf ident\nutf working-tree-encoding=UTF-16\n"
    (fetcher.origin.work / "a").unlink()  # so that git doesn't convert it on the way in
    (fetcher.origin.work / "utf").unlink()
    fetcher.origin.git("update-index", "--skip-worktree", "a", "utf")
    sha = fetcher.origin.commit({".gitattributes": attributes})
    tree = fetcher.checkout(sha).folder
    assert ((tree / "a").read_bytes(), (tree / "utf").read_bytes()) == (b"$Id$\n", b"x\n")


def test_a_commit_that_is_not_there_fails(fetcher: Fetcher) -> None:
    """Flaw 9: errors of clone and checkout were ignored."""
    fetcher.origin.commit({"a": "1"})
    with pytest.raises(Unavailable, match="git fetch"):
        fetcher.checkout("1" * 40)
    assert not fetcher.stores


def test_a_server_that_is_away_does_not_cost_the_mirror(fetcher: Fetcher) -> None:
    fetcher.checkout(fetcher.origin.commit({"a": "1"}))
    sha = fetcher.origin.commit({"a": "2"})
    away = fetcher.origin.bare.rename(fetcher.origin.bare.with_suffix(".away"))
    with pytest.raises(Unavailable):
        fetcher.checkout(sha)
    assert len(fetcher.packs) == 1
    away.rename(fetcher.origin.bare)
    fetcher.checkout(sha)
    assert len(fetcher.packs) == 2


def damage_pack(store: Path) -> None:
    [pack] = store.glob("objects/pack/*.pack")
    pack.chmod(0o600)
    data = bytearray(pack.read_bytes())
    data[len(data) // 2 :] = bytes(len(data) - len(data) // 2)
    pack.write_bytes(data)


def delete_pack(store: Path) -> None:
    for file in store.glob("objects/pack/*.pack"):
        file.unlink()


def empty_head(store: Path) -> None:
    (store / "HEAD").write_text("")


def leave_lock(store: Path) -> None:
    (store / "shallow.lock").touch()


@pytest.mark.parametrize("damage", [damage_pack, delete_pack, empty_head, leave_lock])
@pytest.mark.parametrize("moved", [False, True])
def test_a_damaged_mirror_is_made_anew(damage: object, moved: bool, fetcher: Fetcher) -> None:
    assert callable(damage)
    sha = fetcher.origin.commit({"a": "1" * 500, "b": "".join(map(str, range(5_000)))})
    fetcher.checkout(sha)
    [store] = fetcher.stores
    damage(store)
    if moved:
        sha = fetcher.origin.commit({"a": "2" * 500})
    tree = fetcher.checkout(sha).folder
    assert (tree / "a").read_text() == ("2" if moved else "1") * 500
    assert (tree / "b").read_text() == "".join(map(str, range(5_000)))


def test_a_worn_mirror_is_made_anew(fetcher: Fetcher, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirrors, "_WORN_PACKS", 3)
    for number in range(10):
        fetcher.checkout(fetcher.origin.commit({"a": str(number)}))
        assert len(fetcher.packs) <= 4


def test_mirrors_are_bounded_in_number_and_the_unused_go_first(fetcher: Fetcher) -> None:
    fetcher.settings = replace(fetcher.settings, mirrors_limit=2)
    sha = fetcher.origin.commit({"a": "1"})
    for number in range(4):
        fetcher.checkout(sha, f"local/{number}")
        for age, store in enumerate(fetcher.stores):
            os.utime(store, (1_000 + age, 1_000 + age))
        fetcher.checkout(sha, "local/0")
    assert len(fetcher.stores) == 2
    packs = set(fetcher.packs)
    fetcher.checkout(fetcher.origin.commit({"a": "2"}), "local/0")
    assert packs < set(fetcher.packs), "the one that was used stayed"


def test_mirrors_are_bounded_in_bytes(fetcher: Fetcher) -> None:
    fetcher.settings = replace(fetcher.settings, mirrors_limit_mb=2)
    (fetcher.origin.work / "large").write_bytes(os.urandom(1_500_000))
    sha = fetcher.origin.commit({})
    for number in range(3):
        fetcher.checkout(sha, f"local/{number}")
    assert len(fetcher.stores) == 1


def test_what_a_killed_process_left_is_removed(fetcher: Fetcher) -> None:
    left = fetcher.mirrors.root / "new-left"
    left.mkdir(parents=True)
    os.utime(left, (1_000, 1_000))
    fetcher.checkout(fetcher.origin.commit({"a": "1"}))
    assert not left.exists()


def test_a_repository_too_large_to_fetch_is_refused_and_nothing_of_it_stays(fetcher: Fetcher) -> None:
    fetcher.settings = replace(fetcher.settings, repo_limit_mb=2)
    fetcher.checkout(fetcher.origin.commit({"small": "1"}))
    (fetcher.origin.work / "larger").write_bytes(os.urandom(3 * 1024**2))
    with pytest.raises(TooLarge, match="more than 2 MiB"):
        fetcher.checkout(fetcher.origin.commit({}))
    assert not fetcher.stores


def test_a_tree_that_unpacks_too_large_is_refused_before_it_is_written(fetcher: Fetcher) -> None:
    fetcher.settings = replace(fetcher.settings, repo_limit_mb=2)
    (fetcher.origin.work / "zeros.bin").write_bytes(bytes(3 * 1024**2))
    with pytest.raises(TooLarge, match=r"has 3\.0 MiB, 2 MiB are allowed.*zeros\.bin \(3\.0 MiB\)"):
        fetcher.checkout(fetcher.origin.commit({"a": "1"}))
    assert not list(fetcher.folder.glob("tree-*"))


def test_a_tree_of_very_many_files_is_refused(fetcher: Fetcher) -> None:
    fetcher.settings = replace(fetcher.settings, repo_files_limit=3)
    with pytest.raises(TooLarge, match="has 5 files, 3 are allowed"):
        fetcher.checkout(fetcher.origin.commit(dict.fromkeys("abcde", "")))


def test_a_git_bomb_is_refused_in_time(fetcher: Fetcher) -> None:
    """Ten folders that each hold ten times the same folder, ten levels deep: 10^10 files in 12 objects."""
    git = ("git", f"--git-dir={fetcher.origin.bare}", "-c", "user.name=a", "-c", "user.email=a@example.com")

    def make(*arguments: str, text: str = "") -> str:
        command = (*git, *arguments)
        return subprocess.run(command, input=text, check=True, capture_output=True, text=True).stdout.strip()

    entry, kind = make("hash-object", "-w", "--stdin", text="boom"), "100644 blob"
    for _ in range(10):
        rows = "".join(f"{kind} {entry}\tf{number}\n" for number in range(10))
        entry, kind = make("mktree", text=rows), "040000 tree"
    sha = make("commit-tree", entry, text="boom")
    make("update-ref", "refs/heads/master", sha)
    with pytest.raises(TooLarge, match="names of its files"):
        fetcher.checkout(sha)


def test_hooks_and_configuration_of_the_machine_are_not_used(
    fetcher: Fetcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".gitconfig").write_text(f"[core]\n\thooksPath = {tmp_path}/hooks\n")
    (tmp_path / "hooks").mkdir()
    for name in ("post-checkout", "post-index-change", "reference-transaction"):
        hook = tmp_path / "hooks" / name
        hook.write_text(f"#!/bin/sh\ntouch {tmp_path}/hooked\n")
        hook.chmod(0o755)
    sha = fetcher.origin.commit({"a": "1"})
    monkeypatch.setenv("HOME", str(tmp_path))
    fetcher.checkout(sha)
    assert not (tmp_path / "hooked").exists()


def test_filters_of_a_repository_are_not_run(fetcher: Fetcher) -> None:
    sha = fetcher.origin.commit({".gitattributes": "* filter=lfs\n", "a": "raw"})
    assert (fetcher.checkout(sha).folder / "a").read_text() == "raw"


def test_a_link_stays_a_link_and_a_submodule_is_not_fetched(fetcher: Fetcher) -> None:
    (fetcher.origin.work / "leak").symlink_to("/etc/passwd")
    fetcher.origin.git("update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},sub")
    (fetcher.origin.work / "sub").mkdir()
    sha = fetcher.origin.commit({".gitmodules": '[submodule "s"]\n\tpath = sub\n\turl = ext::sh -c id\n'})
    found = fetcher.checkout(sha)
    assert (found.folder / "leak").is_symlink()
    assert found.submodules == {"sub": "1" * 40}
    assert not list((found.folder / "sub").iterdir())


@pytest.mark.parametrize("name", [".git", ".GIT", "git~1"])
def test_a_tree_that_git_would_not_check_out_fails(name: str, fetcher: Fetcher) -> None:
    def make(*arguments: str, text: str = "") -> str:
        command = ("git", f"--git-dir={fetcher.origin.bare}", *arguments)
        identity = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@example.com"}
        identity |= {key.replace("AUTHOR", "COMMITTER"): value for key, value in identity.items()}
        done = subprocess.run(
            command, input=text, check=True, capture_output=True, text=True, env={**os.environ, **identity}
        )
        return done.stdout.strip()

    blob = make("hash-object", "-w", "--stdin", text="[core]\n\tfsmonitor = touch pwned\n")
    folder = make("mktree", text=f"100644 blob {blob}\tconfig\n")
    tree = make("mktree", text=f"040000 tree {folder}\t{name}\n")
    sha = make("commit-tree", tree, text="x")
    make("update-ref", "refs/heads/master", sha)
    with pytest.raises(Failed, match="invalid path"):
        fetcher.checkout(sha)


def tree_of(fetcher: Fetcher, *rows: tuple[str, str, str]) -> str:
    """A commit of entries (mode, name, text) that git itself would not put into one tree."""
    git = ("git", f"--git-dir={fetcher.origin.bare}", "-c", "user.name=a", "-c", "user.email=a@example.com")

    def make(*arguments: str, text: bytes = b"") -> str:
        return (
            subprocess.run((*git, *arguments), input=text, check=True, capture_output=True)
            .stdout.decode()
            .strip()
        )

    raw = b""
    for mode, name, text in rows:
        blob = make("hash-object", "-w", "--stdin", text=text.encode())
        raw += f"{mode} {name}".encode() + b"\0" + bytes.fromhex(blob)
    tree = make("hash-object", "-w", "-t", "tree", "--literally", "--stdin", text=raw)
    sha = make("commit-tree", tree, text=b"x")
    make("update-ref", "refs/heads/master", sha)
    return sha


def test_two_things_of_one_name_are_refused(fetcher: Fetcher) -> None:
    """What is listed would not be what is there: a small file, and a link to anywhere."""
    sha = tree_of(fetcher, ("100644", "a", "small"), ("120000", "a", "/dev/zero"))
    with pytest.raises(Failed, match="two things in its tree have one name"):
        fetcher.checkout(sha)


def test_a_name_that_no_file_system_takes_fails(fetcher: Fetcher) -> None:
    with pytest.raises(Failed, match="File name too long"):
        fetcher.checkout(tree_of(fetcher, ("100644", "a" * 300, "x")))


def test_a_mirror_that_has_grown_large_is_made_anew(fetcher: Fetcher) -> None:
    fetcher.settings = replace(fetcher.settings, repo_limit_mb=3)
    for _ in range(6):
        (fetcher.origin.work / "large").write_bytes(os.urandom(1_000_000))
        fetcher.checkout(fetcher.origin.commit({}))
        assert len(fetcher.packs) <= 4


def test_twenty_pushes_on_two_branches_never_mix(fetcher: Fetcher) -> None:
    """Flaw 8: one shared clone path per repository, removed and made again by each push."""
    shas = {}
    for number in range(20):
        files = {f"file{index}": f"{number}" for index in range(20)}
        shas[fetcher.origin.commit(files, f"refs/heads/branch{number % 2}")] = number

    def contents(sha: str) -> set[str]:
        tree = fetcher.checkout(sha).folder
        return {path.read_text() for path in tree.iterdir()}

    with ThreadPoolExecutor(20) as pool:
        found = dict(zip(shas, pool.map(contents, shas), strict=True))
    assert found == {sha: {str(number)} for sha, number in shas.items()}
    assert len(fetcher.stores) == 1


def test_who_waits_too_long_is_told_to_come_back(fetcher: Fetcher) -> None:
    sha = fetcher.origin.commit({"a": "1"})
    fetcher.checkout(sha)
    [store] = fetcher.stores
    fetcher.settings = replace(fetcher.settings, fetch_timeout=Seconds(0.2))
    with fetcher.mirrors._locked(store, 1), pytest.raises(Busy):
        fetcher.checkout(sha)


def overwrite(folder: Path) -> None:
    (folder / "a").write_text("2")


def make_executable(folder: Path) -> None:
    (folder / "a").chmod(0o755)


def make_link(folder: Path) -> None:
    (folder / "a").rename(folder / "b")
    (folder / "a").symlink_to("b")


def make_other_link(folder: Path) -> None:
    (folder / "link").unlink()
    (folder / "link").symlink_to("b")


def make_link_a_file(folder: Path) -> None:
    (folder / "link").unlink()
    (folder / "link").write_text("a")


@pytest.mark.parametrize("change", [overwrite, make_executable, make_link, make_other_link, make_link_a_file])
def test_a_tree_that_is_not_the_commits_is_not_built(
    change: Callable[[Path], None], fetcher: Fetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    (fetcher.origin.work / "link").symlink_to("a")
    sha = fetcher.origin.commit({"a": "1"})
    assert fetcher.checkout(sha).folder.joinpath("link").readlink() == Path("a")
    write = mirrors._checked_out

    def written_otherwise(client: Client, tree: Sequence[str], sha: str, index: Path) -> None:
        write(client, tree, sha, index)
        change(Path(tree[1].removeprefix("--work-tree=")))

    monkeypatch.setattr(mirrors, "_checked_out", written_otherwise)
    with pytest.raises(Unavailable, match="is not what the commit has"):
        fetcher.checkout(sha)
