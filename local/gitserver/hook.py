"""The proc-receive hook: updates the branch, then follows the push until it is live or has failed.

A post-receive hook would follow it too, but git ignores its exit status; what proc-receive reports
is the push's own result. The commit stays on the server either way, as it would on GitHub.
https://git-scm.com/docs/githooks#proc-receive
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from sdk.messages import NO_COMMIT
from sdk.settings import Settings

from .deliver import deliver, say
from .event import Update
from .repository import BareRepository


def main() -> None:
    repository = BareRepository.at(Path(os.environ["GIT_DIR"]).resolve())
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    updates = negotiate(source, sink)
    for update in updates:
        problem = apply(repository, update) or deliver(
            repository, update, Settings.read(), os.environ.get("PUBLIC_URL", "")
        )
        if problem:
            say("the commit is stored: mend it and push again (amended? git push -f cloud), or try it again,")
            say("in the cloud's folder, by")
            say("  .venv/bin/python -m local retry -C YOUR-REPOSITORY")
        write(sink, f"ng {update.ref} {problem}" if problem else f"ok {update.ref}")
    flush(sink)


def negotiate(source: BinaryIO, sink: BinaryIO) -> Sequence[Update]:
    """The protocol's opening: versions, then the commands."""
    list(packets(source))
    write(sink, "version=1")
    flush(sink)
    return [Update(*line.split(" ", 2)) for line in packets(source)]


def packets(source: BinaryIO) -> Iterator[str]:
    """Packet lines up to the next flush (https://git-scm.com/docs/gitprotocol-common)."""
    while (length := int(source.read(4) or b"0000", 16)) > 0:
        yield source.read(length - 4).decode().rstrip("\n")


def write(sink: BinaryIO, text: str) -> None:
    data = text.encode()
    sink.write(b"%04x%b" % (len(data) + 4, data))


def flush(sink: BinaryIO) -> None:
    sink.write(b"0000")
    sink.flush()


def apply(repository: BareRepository, update: Update) -> str:
    """Move the ref, unless it has moved since; returns the problem, empty if there is none."""
    change = ("update-ref", "-d", update.ref, update.before)
    if update.after != NO_COMMIT:
        change = ("update-ref", update.ref, update.after, update.before)
    try:
        repository.git(*change)
    except subprocess.CalledProcessError as error:
        return f"the branch was not moved: {error.stderr.strip().splitlines()[-1]}"
    return ""
