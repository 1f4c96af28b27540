"""Links to list-functions: who holds one sees what it names, until it expires.

A function can't know whether the gateway asked for a password, and none must be typed in at its address: a
browser would send it to every author's function, as they all have the gateway's origin.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlencode

import msgspec

from . import signature
from .errors import Unauthorized
from .secrets import Keys

SECRET = "link-secret"  # noqa: S105 - its name
# In place of an owner: an operator's link.
EVERYBODY = "*"
AGAIN = "ask the cloud's operator for a new link"

_SECONDS = re.compile(r"[0-9]{1,12}")


@dataclass(frozen=True)
class Link:
    """`owner` decides what is seen: `<scm>/<id>`, empty for everybody's; `user` is its name, for people.

    `until`: seconds since 1970.
    """

    user: str
    owner: str
    until: int

    def query(self, keys: Keys) -> dict[str, str]:
        key = signature.sign(self._signed(), keys).removeprefix(signature.PREFIX)
        return {"user": self.user, "owner": self.owner, "until": str(self.until), "key": key}

    def url(self, gateway: str, keys: Keys) -> str:
        return f"{gateway.rstrip('/')}/function/list-functions?{urlencode(self.query(keys))}"

    def _signed(self) -> bytes:
        # A list, where the messages between our functions are maps: neither passes for the other.
        return msgspec.json.encode(["list-functions", self.user, self.owner, self.until])


def read(query: Mapping[str, str], keys: Keys, *, now: float | None = None) -> Link:
    """The link in a query; `Unauthorized` unless a line of the secret signed it and it has not expired."""
    until = query.get("until", "")
    if not _SECONDS.fullmatch(until):
        raise Unauthorized(f"this needs a link's user, owner, until and key: {AGAIN}")
    link = Link(query.get("user", ""), query.get("owner", ""), int(until))
    try:
        signature.verify(_encodable(link), signature.PREFIX + query.get("key", ""), keys)
    except Unauthorized:
        raise Unauthorized(f"the link is not one of this cloud's, or was revoked: {AGAIN}") from None
    if (time.time() if now is None else now) >= link.until:
        raise Unauthorized(f"the link has expired: {AGAIN}")
    return link


def _encodable(link: Link) -> bytes:
    try:
        return link._signed()
    except UnicodeEncodeError:  # half a surrogate, say
        return b""
