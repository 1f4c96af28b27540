"""Takes out of a text what not everybody may read: credentials in URLs, and values that are known."""

from __future__ import annotations

import re
from collections.abc import Iterable

MASK = "***"
# Shorter values (`true`, `8080`) are in every other line: masking them would tell what they are.
LEAST = 6

_CREDENTIALS = re.compile(r"(?<=://)[^/?#\s'\"]+@")


def masked(text: str, values: Iterable[str] = ()) -> str:
    """`text` without credentials in URLs, and without the lines of `values` that are long enough."""
    lines = {line.strip() for value in values for line in value.splitlines()}
    for line in sorted(lines, key=len, reverse=True):
        if len(line) >= LEAST:
            text = text.replace(line, MASK)
    return _CREDENTIALS.sub(f"{MASK}@", text)
