"""What an author does: push a repository of functions, try a push again, set a secret."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from sdk import naming
from sdk.gateway import Gateway

from .errors import CommandError
from .gitserver.repository import PLATFORM, owner_id
from .showing import followed
from .state import State
from .steps import console, run

REMOTE = "cloud"
OWNER = "alice"  # where nobody says whose functions they are
BRANCH = "refs/heads/master"
SCM = "local"
_OWNER = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,37}[a-z0-9])?")
_REMOTE_PATH = re.compile(r"https?://[^/]+/([^/]+/[^/]+?)(?:\.git)?$")


def git(folder: Path, *arguments: str) -> str:
    return run(("git", "-C", str(folder), *arguments), what=f"git {arguments[0]}").strip()


def push(folder: Path, owner: str | None, state: State) -> None:
    """Push HEAD to the remote `cloud`, which is set up if need be; raises if the push fails.

    What is on the server already is not pushed by git: then its event is delivered again.
    """
    _check_repository(folder)
    if subprocess.run(
        ("git", "-C", str(folder), "rev-parse", "--verify", "HEAD"), capture_output=True
    ).returncode:
        raise CommandError("nothing is committed yet: git add --all && git commit")
    name = re.sub(r"[^A-Za-z0-9._-]", "-", folder.resolve().name)
    before = _pushed_to(folder, state)
    if owner or REMOTE not in git(folder, "remote").split():
        set_remote(folder, owner or OWNER, name, state)
    for line in _told(before, _pushed_to(folder, state), owner):
        console.print(line, soft_wrap=True, markup=False)
    if _head(folder) == git(folder, "rev-parse", "HEAD"):
        retry(folder, None)
    elif followed(("git", "-C", str(folder), "push", REMOTE)):
        raise CommandError("the push failed")


def _pushed_to(folder: Path, state: State) -> str:
    """OWNER/REPO of this cloud that the remote stands for; empty if it is none of this cloud's."""
    ask = ("git", "-C", str(folder), "remote", "get-url", REMOTE)
    url = subprocess.run(ask, capture_output=True, text=True).stdout.strip()
    match = _REMOTE_PATH.fullmatch(url) if url.startswith(f"{state.git_url}/") else None
    return match[1] if match else ""


def _told(before: str, now: str, owner: str | None) -> Iterator[str]:
    """As whom is pushed, where nobody said so, and what stays of another owner."""
    if not before and not owner and now:
        yield f"pushing as {now.split('/')[0]}; --owner NAME for another"
    if before and before != now:
        remove = f"python -m local collect {before} --uninstall"
        yield f"the functions of {before} stay live; to remove them: {remove}"


def set_remote(folder: Path, owner: str, name: str, state: State) -> None:
    """`git push cloud` pushes HEAD to the branch that is built, whatever the local branch is called."""
    _check_owner(owner)
    url = f"{state.git_url}/{owner}/{name}.git"
    verb = "set-url" if REMOTE in git(folder, "remote").split() else "add"
    git(folder, "remote", verb, REMOTE, url)
    git(folder, "config", f"remote.{REMOTE}.push", f"HEAD:{BRANCH}")


def example(source: Path, folder: Path, owner: str, state: State) -> Path:
    """A repository of one's own with the example in it: cloned if it was pushed before, else new."""
    if not (folder / ".git").exists():
        _make(source, folder, f"{state.git_url}/{owner}/{folder.name}.git")
    set_remote(folder, owner, folder.name, state)  # an earlier cloud may have had another port
    return folder


def _make(source: Path, folder: Path, url: str) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    known = subprocess.run(("git", "ls-remote", "--exit-code", url, BRANCH), capture_output=True)
    if known.returncode == 0:
        run(("git", "clone", "--quiet", "--origin", REMOTE, url, str(folder)), what="git clone")
    else:
        shutil.copytree(source, folder)
        git(folder, "init", "--quiet", "--initial-branch=master")
        git(folder, "add", "--all")
        git(folder, *_identity(folder), "commit", "--quiet", "--message", "Hello")


def retry(folder: Path, sha: str | None) -> None:
    """Deliver the event of the branch's head again. Only the head is ever deployed."""
    match = _REMOTE_PATH.fullmatch(git(folder, "remote", "get-url", REMOTE))
    if not match:
        raise CommandError(f"the remote {REMOTE} is none of this cloud's: push first")
    head = _head(folder)
    if not head:
        raise CommandError("nothing was pushed yet: git push cloud")
    if sha and not head.startswith(sha):
        raise CommandError(f"{sha} is not the head of the branch, {head[:10]} is: only a head is deployed")
    container = ("docker", "exec", "openfaas-cloud-git-server")
    deliver = ("python3", "-m", "local.gitserver.deliver", match[1], BRANCH)
    if followed((*container, *deliver)):
        raise CommandError("the push failed again")


def set_secret(owner: str, name: str, value: str, gateway: Gateway) -> str:
    """Set an author's secret; returns its name in the cluster."""
    _check_owner(owner)
    full = naming.user_secret(SCM, owner_id(owner), name)
    gateway.set_secret(full, value)
    return full


def _check_owner(owner: str) -> None:
    if not _OWNER.fullmatch(owner) or owner == PLATFORM:
        raise CommandError(f"owner {owner!r}: use a-z, 0-9 and dashes, at most 39, but not {PLATFORM}")


def _head(folder: Path) -> str:
    """The commit that the branch is at on the server; empty if it, or the repository, isn't there."""
    command = ("git", "-C", str(folder), "ls-remote", REMOTE, BRANCH)
    return subprocess.run(command, capture_output=True, text=True).stdout.split("\t")[0]


def _check_repository(folder: Path) -> None:
    if not folder.is_dir():
        raise CommandError(f"{folder} is not a folder")
    top = subprocess.run(
        ("git", "-C", str(folder), "rev-parse", "--show-toplevel"), capture_output=True, text=True
    )
    if top.returncode or Path(top.stdout.strip()).resolve() != folder.resolve():
        raise CommandError(
            f"{folder} is no git repository of its own; make it one:\n"
            f"  cd {folder} && git init && git add . && git commit -m first"
        )


def _identity(folder: Path) -> tuple[str, ...]:
    """A name for the first commit, where git knows none."""
    known = subprocess.run(("git", "-C", str(folder), "config", "user.email"), capture_output=True)
    if known.returncode == 0 or "GIT_AUTHOR_EMAIL" in os.environ:
        return ()
    return ("-c", "user.name=OpenFaaS Cloud", "-c", "user.email=cloud@localhost")
