"""Repositories to measure with, made by `git fast-import`."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

BRANCH = "refs/heads/master"
_TIME = "1750000000 +0000"


def git(*arguments: str | Path, stdin: bytes = b"") -> str:
    """What git prints."""
    command = ("git", *map(str, arguments))
    return subprocess.run(command, input=stdin, check=True, capture_output=True).stdout.decode().strip()


def committed(
    bare: Path, commits: Iterable[Mapping[str, str | bytes]], message: str = "change", ref: str = BRANCH
) -> str:
    """Add commits, each of the files that it changes, to a branch of a bare repository; returns its head."""
    where = f"--git-dir={bare}"
    known = subprocess.run(("git", where, "rev-parse", "--verify", "-q", ref), capture_output=True)
    parent = known.stdout.strip()
    with subprocess.Popen(
        ("git", where, "fast-import", "--quiet", "--force"), stdin=subprocess.PIPE
    ) as process:
        assert process.stdin
        for number, files in enumerate(commits):
            head = f"commit {ref}\ncommitter bench <bench@example.com> {_TIME}\n"
            process.stdin.write(f"{head}data {len(message)}\n{message}\n".encode())
            if parent and not number:
                process.stdin.write(b"from %b\n" % parent)
            for path, content in files.items():
                data = content.encode() if isinstance(content, str) else content
                process.stdin.write(f"M 100644 inline {path}\ndata {len(data)}\n".encode() + data + b"\n")
    assert process.returncode == 0
    return git(where, "rev-parse", ref)
