"""Secret files under `secret_mount_path`. A value never shows in a repr, a log or an error.

A file may hold several lines: the first signs, all verify. So a secret is rotated without a moment in
which a signature is refused: add the new line at the end, everywhere; then move it to the top; then remove
the old one.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from .errors import Misconfigured

# How long a file is not looked at again; whoever rotates a secret takes longer for each step.
LOOK_SECONDS = 0.1


@dataclass(frozen=True)
class Keys:
    """The lines of one secret; at least one."""

    name: str
    lines: tuple[bytes, ...] = field(repr=False)

    @property
    def signing(self) -> bytes:
        return self.lines[0]

    def __str__(self) -> str:
        return f"<secret {self.name}>"


def read(name: str, folder: str, *, fallback: str = "") -> Keys:
    """The secret `name`: the file of that name, else the environment variable `fallback`.

    Raises `Misconfigured` when there is none: whoever can't verify must refuse.
    """
    found = find(name, folder, fallback=fallback)
    if not found:
        raise Misconfigured(f"secret {name} is missing: create it and deploy this function again")
    return found


def find(name: str, folder: str, *, fallback: str = "") -> Keys | None:
    """The same for a secret that need not be there: None."""
    text = content(name, folder)
    if text is None:
        text = os.environ.get(fallback, "").encode() if fallback else b""
    lines = tuple(line.strip() for line in text.splitlines() if line.strip())
    return Keys(name, lines) if lines else None


def content(name: str, folder: str) -> bytes | None:
    """The whole file, for a secret that is a document; None if there is none.

    As it was at most `LOOK_SECONDS` ago: to read it is nine system calls, at each of which another thread may
    take Python's lock. With eight clients that took a third of gh-push's pace.
    """
    return _content(name, folder, int(time.monotonic() / LOOK_SECONDS))


@lru_cache(maxsize=64)
def _content(name: str, folder: str, _look: int) -> bytes | None:
    try:
        return (Path(folder) / name).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise Misconfigured(f"secret {name} can't be read: {error.strerror}") from None
