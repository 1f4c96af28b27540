"""Secret files under `secret_mount_path`. A value never shows in a repr, a log or an error.

A file may hold several lines: the first signs, all verify. So a secret is rotated without a moment in
which a signature is refused: add the new line at the end, everywhere; then move it to the top; then remove
the old one.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from .errors import Misconfigured


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
    try:
        text = (Path(folder) / name).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        text = os.environ.get(fallback, "").encode() if fallback else b""
    except OSError as error:
        raise Misconfigured(f"secret {name} can't be read: {error.strerror}") from None
    lines = tuple(line.strip() for line in text.splitlines() if line.strip())
    if not lines:
        raise Misconfigured(f"secret {name} is missing: create it and deploy this function again")
    return Keys(name, lines)
