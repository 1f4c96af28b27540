"""The commit at a ref, by git's own protocol: one request on a connection that stays open.

`git ls-remote` starts two programs, connects anew and sends two requests. What is not answered in just the
words of the protocol's version 2 is git's matter: it knows all the others, and what to say of them.
https://git-scm.com/docs/protocol-v2#_ls_refs, https://git-scm.com/docs/http-protocol
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from urllib.parse import urlsplit

import requests
import urllib3

from .sdk.sessions import CONNECT_SECONDS, session

# The answer is one line, but other refs may begin with the same words.
_BYTES, _NAME_LENGTH = 64 * 1024, 1000
_SECONDS = 10
_FLUSH, _DELIMITER = b"0000", b"0001"
_HEADER = 4
_TYPE = "application/x-git-upload-pack-{}"


def commit(url: str, token: str, ref: str, seconds: float) -> str:
    """What the server says is at exactly `ref`; empty if it says nothing of it that can be read here."""
    if urlsplit(url).scheme not in ("http", "https") or len(ref) > _NAME_LENGTH:
        return ""
    seconds = min(seconds, _SECONDS)
    deadline, body = time.monotonic() + seconds, b""
    try:
        with session(retries=0).post(
            f"{url}/git-upload-pack",
            _packet("command=ls-refs\n") + _DELIMITER + _packet(f"ref-prefix {ref}\n") + _FLUSH,
            headers={
                "Git-Protocol": "version=2",
                "Content-Type": _TYPE.format("request"),
                "Accept": _TYPE.format("result"),
            },
            auth=("x-access-token", token) if token else None,
            timeout=(min(seconds, CONNECT_SECONDS), seconds),
            allow_redirects=False,
            stream=True,
        ) as answer:
            if answer.status_code != 200 or answer.headers.get("Content-Type") != _TYPE.format("result"):
                return ""
            while piece := answer.raw.read1(_BYTES):
                body += piece
                if len(body) > _BYTES or time.monotonic() > deadline:
                    return ""
    except (requests.RequestException, urllib3.exceptions.HTTPError, OSError):
        return ""
    return listed(body).get(ref, "")


def listed(body: bytes) -> Mapping[str, str]:
    """The answer to `ls-refs`, each ref with its id; nothing unless it is whole.

    A packet is its length in four hexadecimal digits, which count too, and `<id> <ref>\\n`; `0000` ends all.
    """
    found: dict[str, str] = {}
    while body and body != _FLUSH:
        try:
            length = int(body[:_HEADER], 16)
            sha, _, rest = body[_HEADER:length].decode().partition(" ")
        except ValueError:
            return {}
        if not _HEADER < length <= len(body) or not rest.endswith("\n"):
            return {}
        found[rest[:-1]] = sha
        body = body[length:]
    return found if body == _FLUSH else {}


def _packet(text: str) -> bytes:
    encoded = text.encode()
    return b"%04x" % (len(encoded) + _HEADER) + encoded
