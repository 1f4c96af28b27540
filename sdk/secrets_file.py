"""secrets.yml: an author's sealed secrets in the repository; sealing.py seals and opens what it holds."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import msgspec
import yaml

from . import naming
from .errors import Malformed
from .plain_yaml import mapping

NAME = "secrets.yml"
# What makes the file ours: others' are called so, too.
MARK, VERSION = "sealed", "v1"
FILE_BYTES = 512 * 1024
MOST = 50
_HEAD = "# Made by `python -m local seal`. Only the cloud can open it, and only for this repository.\n"


def parse(data: bytes) -> Mapping[str, str] | None:
    """The sealed texts by name; None for a file that is not ours. `Malformed` for whatever is none at all."""
    rows = mapping(data, NAME, FILE_BYTES)
    if MARK not in rows:
        return None
    if rows[MARK] != VERSION:
        raise Malformed(f"{NAME}: only {MARK}: {VERSION} is known")
    texts = rows.get("secrets") or {}
    if not isinstance(texts, dict) or len(texts) > MOST:
        raise Malformed(f"{NAME}: secrets is no map, or has more than {MOST} of them")
    for name, text in texts.items():
        if not (isinstance(name, str) and naming.is_secret(name)):
            raise Malformed(
                f"{NAME}: {str(name)[:100]!r} is no name of a secret: use a-z, 0-9, dashes and dots"
            )
        if not isinstance(text, str):
            raise Malformed(f"{NAME}: {name} is no text: seal it again")
    return texts


def document(texts: Mapping[str, str]) -> str:
    rows = {MARK: VERSION, "secrets": dict(sorted(texts.items()))}
    return _HEAD + yaml.safe_dump(rows, sort_keys=False, width=100)


def digest(texts: Mapping[str, str]) -> str:
    """What says whether they are the same: each sealing of a value gives another text."""
    return hashlib.sha256(msgspec.json.encode(sorted(texts.items()))).hexdigest()
