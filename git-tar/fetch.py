"""git, run so that a stranger's repository and server can do nothing but hand over a tree."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

import git

from .sdk.errors import Refused, Unavailable

_SHA = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")

# Nothing is asked, followed, run or read that the command line does not name.
_CONFIG = (
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "credential.helper=",
    "http.followRedirects=false",
    "http.lowSpeedLimit=1000",
    "http.lowSpeedTime=20",
    "submodule.recurse=false",
    "gc.auto=0",
    "advice.detachedHead=false",
)


def check_url(url: str, allowed: Sequence[str]) -> None:
    """Raise `Refused` unless `url` is below one of the allowed origins, as `https://github.com`."""
    parts = urlsplit(url)
    plain = not (parts.username or parts.password or parts.query or parts.fragment)
    inside = any(
        (parts.scheme, parts.netloc) == (origin.scheme, origin.netloc)
        and parts.path.startswith(origin.path.rstrip("/") + "/")
        for origin in map(urlsplit, allowed)
    )
    if not (plain and inside and ".." not in parts.path.split("/")) or re.search(r"[\s\\]", url):
        raise Refused(f"clone URL {url!r} is not below an allowed origin ({', '.join(allowed) or 'none'})")


def head(url: str, ref: str, *, seconds: float) -> str | None:
    """The commit at exactly `ref` on the server, None if there is no such ref.

    `ls-remote` also lists refs that merely end in the name, so they are compared whole.
    """
    listed = _git(("ls-remote", "--", url, ref), url, Path("/"), seconds)
    for line in listed.splitlines():
        sha, _, name = line.partition("\t")
        if name == ref and _SHA.fullmatch(sha):
            return sha
    return None


def checkout(url: str, sha: str, folder: Path, *, seconds: float) -> Path:
    """Fetch the one commit `sha` and check it out below `folder`; returns the tree.

    The tree has no `.git`: what copies it can't copy git's own files. git verifies every object
    against its id, so the tree is the commit's or the fetch fails.
    """
    tree, store = folder / "tree", folder / "git"
    tree.mkdir(parents=True)
    where = (f"--git-dir={store}", f"--work-tree={tree}")
    _git((*where, "init", "--quiet"), url, folder, seconds)
    _git((*where, "fetch", "--quiet", "--depth=1", "--no-tags", "--", url, sha), url, folder, seconds)
    _git((*where, "checkout", "--quiet", "--detach", "--force", sha), url, folder, seconds)
    checked_out = _git((*where, "rev-parse", "HEAD"), url, folder, seconds).strip()
    if checked_out != sha:
        raise Unavailable(f"the checkout of {url} is at {checked_out}, not at {sha}")
    return tree


def _git(arguments: Sequence[str], url: str, folder: Path, seconds: float) -> str:
    options = [part for entry in _CONFIG for part in ("-c", entry)]
    environment = {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(folder),
        "GIT_ALLOW_PROTOCOL": urlsplit(url).scheme,
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ASKPASS": "true",
    }
    try:
        return str(
            git.Git(folder).execute(
                ["git", *options, *arguments],
                env=environment,
                kill_after_timeout=seconds,
                with_extended_output=False,
            )
        )
    except git.exc.GitCommandError as error:
        said = " ".join(str(error.stderr).split())[-400:]
        raise Unavailable(f"git {_verb(arguments)} of {url} failed: {said}") from None


def _verb(arguments: Sequence[str]) -> str:
    return next(argument for argument in arguments if not argument.startswith("-"))
