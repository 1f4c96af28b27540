"""git, run so that a stranger's repository and server can do nothing but hand over a tree."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import git

from . import disk, refs
from .sdk.errors import Failed, Refused, TooLarge, Unavailable

SHA = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")

_ASKPASS = Path(__file__).with_name("askpass.sh")

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
    "maintenance.auto=false",
    "core.fsync=none",  # mirrors are made anew when they are damaged
    "fetch.unpackLimit=1",
)
# What git says when it writes more than `ulimit -f` allows; index-pack then dies without a word.
_FILE_TOO_LARGE = re.compile(
    r"died of signal 25|File too large|\Afatal: fetch-pack: invalid index-pack output\Z"
)
# GitPython shows it in quotes.
_STDERR = re.compile(r"\s*stderr: '(.*)'", re.DOTALL)

_LATE = 124  # the exit status of timeout
_SPARE_SECONDS = 5
_ASKS = re.compile(r"could not read (?:Username|Password)|Authentication failed|repository '[^']*' not found")
_MOVED = re.compile(r"redirect|returned error: 30[1278]")


@dataclass(frozen=True)
class Remote:
    """A repository on a server; `token` reads it if it is private."""

    url: str
    token: str = field(default="", repr=False)


@dataclass(frozen=True)
class Client:
    """git for one remote: each call ends within `seconds` and writes no file of over `limit_mb` MiB."""

    remote: Remote
    seconds: float
    limit_mb: int

    def head(self, ref: str) -> str | None:
        """The commit at exactly `ref` on the server, None if there is no such ref.

        `ls-remote` also lists refs that merely end in the name, so they are compared whole.
        """
        if not ref.isprintable():
            return None
        told = refs.commit(self.remote.url, self.remote.token, ref, self.seconds)
        if SHA.fullmatch(told):
            return told
        for line in self.run("ls-remote", "--", self.remote.url, ref).splitlines():
            sha, _, name = line.partition("\t")
            if name == ref and SHA.fullmatch(sha):
                return sha
        return None

    def run(self, *arguments: str, index: Path | None = None, most: int = 0) -> str:
        """What git prints; with `most`, that many bytes of it, then whether git failed isn't known.

        Raises `Unavailable` with git's own words, `TooLarge` above `limit_mb`.
        """
        options = [part for entry in _CONFIG for part in ("-c", entry)]
        # POSIX counts blocks of 512 bytes. timeout ends git with all that it has started.
        limited = f'timeout -k 2 {math.ceil(self.seconds)} "$0" "$@"'
        limited = f"{limited} | head -c {most}" if most else f"exec {limited}"
        script = f"ulimit -f {self.limit_mb * 2048} && {limited}"
        command = ["sh", "-c", script, "git", *options, *arguments]
        try:
            return str(
                git.Git("/").execute(
                    command,
                    env=self._environment(index),
                    kill_after_timeout=self.seconds + _SPARE_SECONDS,
                    with_extended_output=False,
                )
            )
        except git.exc.GitCommandError as error:
            shown = _STDERR.fullmatch(str(error.stderr))
            said = shown[1].strip() if shown else str(error.stderr)
            late = error.status == _LATE or said.startswith("Timeout:")
            raise self._error(
                arguments, f"it did not end within {self.seconds:g} s" if late else said
            ) from None

    def _environment(self, index: Path | None) -> Mapping[str, str]:
        parts = urlsplit(self.remote.url)
        environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": "/nonexistent",
            "GIT_ALLOW_PROTOCOL": parts.scheme,
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_ASKPASS": str(_ASKPASS),
            "ASKPASS_SCHEME": parts.scheme,
            "ASKPASS_HOST": parts.netloc,
            "ASKPASS_TOKEN": self.remote.token,
        }
        return {**environment, "GIT_INDEX_FILE": str(index)} if index else environment

    def _error(self, arguments: Sequence[str], stderr: str) -> Exception:
        if _FILE_TOO_LARGE.search(stderr):
            return TooLarge(
                f"{self.remote.url} is too large: more than {self.limit_mb} MiB (setting repo_limit_mb); "
                "keep large files elsewhere"
            )
        if _ASKS.search(stderr):
            return Failed(
                f"{self.remote.url} can't be read: there is no such repository, or it is private and the "
                "GitHub App may not read it (setting github_app_id, secret private-key)"
            )
        if _MOVED.search(stderr):
            return Failed(f"{self.remote.url} has moved: push again from where the repository is now")
        said = " ".join(stderr.split())[-400:]
        if self.remote.token:
            said = said.replace(self.remote.token, "***")
        if disk.is_full(stderr):
            return disk.full(said)
        verb = next(argument for argument in arguments if not argument.startswith("-"))
        return Unavailable(f"git {verb} of {self.remote.url} failed: {said}")


def check_url(url: str, allowed: Sequence[str]) -> None:
    """Raise `Refused` unless `url` is below one of the allowed origins, as `https://github.com`."""
    try:
        parts = urlsplit(url)
    except ValueError:
        raise Refused(f"clone URL {url!r} is no URL") from None
    plain = not (parts.username or parts.password or parts.query or parts.fragment)
    inside = any(
        (parts.scheme, parts.netloc) == (origin.scheme, origin.netloc)
        and parts.path.startswith(origin.path.rstrip("/") + "/")
        for origin in map(urlsplit, allowed)
    )
    if not (plain and inside and ".." not in parts.path.split("/")) or re.search(r"[^!-~]|[\\%]", url):
        raise Refused(f"clone URL {url!r} is not below an allowed origin ({', '.join(allowed) or 'none'})")
