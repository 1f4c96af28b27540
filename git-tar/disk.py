"""A full disk: nobody's push is wrong, an operator makes room, and what was to be done is tried again."""

from __future__ import annotations

import errno
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from .sdk.errors import Unavailable

_FULL = (errno.ENOSPC, errno.EDQUOT)
# git says why only where it creates a file; where it writes to one, it says that it could not.
_SAID = re.compile(
    r"No space left on device|Disk quota exceeded|Out of diskspace|write error|couldn't write "
    r"|(?:unable|failed) to (?:write|create directory)"
)


@contextmanager
def checked() -> Iterator[None]:
    """Raise `Unavailable` for what fails in the block because there is no room."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise full(error.strerror or "") from error
        raise


def is_full(said: str) -> bool:
    """Whether git's words mean that it could not write."""
    return bool(_SAID.search(said))


def full(said: str) -> Unavailable:
    return Unavailable(
        f"the disk of git-tar's work folder {tempfile.gettempdir()} is full: make room there, or lower the "
        f"setting mirrors_limit_mb; the push is tried again by itself ({said})"
    )
