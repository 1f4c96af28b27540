"""Who asks: the App by what its private key signed, or an installation by a token that the App has got.

https://docs.github.com/apps/creating-github-apps/authenticating-with-a-github-app
"""

from __future__ import annotations

import hashlib
import secrets
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import jwt
from cachetools import TTLCache
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

TOKEN_SECONDS = 3600
_MOST_TOKENS = 1000
_JWT_SECONDS, _CLOCK_SECONDS = 600, 60


@dataclass(frozen=True)
class App:
    """The App: its number, and the public half of its key."""

    id: str
    key: RSAPublicKey

    def refuses(self, token: str) -> str:
        """Why `token` is none of the App's own; empty if it is one."""
        try:
            claims = jwt.decode(
                token,
                self.key,
                algorithms=["RS256"],
                issuer=self.id,
                leeway=_CLOCK_SECONDS,
                options={"require": ["iat", "exp", "iss"]},
            )
        except jwt.PyJWTError:
            return "A JSON web token could not be decoded"
        if claims["exp"] > time.time() + _JWT_SECONDS:
            return "'Expiration time' claim ('exp') is too far in the future"
        return ""


@dataclass(frozen=True)
class Grant:
    """What a token may: in `repository` (OWNER/NAME), by permission."""

    repository: str
    permissions: Mapping[str, str]

    def may(self, permission: str, level: str) -> bool:
        return self.permissions.get(permission) in (level, "write")


@dataclass
class Tokens:
    """The tokens of an hour, by their digests; a restart forgets them."""

    _grants: TTLCache[bytes, Grant] = field(default_factory=lambda: TTLCache(_MOST_TOKENS, TOKEN_SECONDS))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def mint(self, grant: Grant) -> str:
        token = f"ghs_{secrets.token_urlsafe(27)}"
        with self._lock:
            self._grants[_digest(token)] = grant
        return token

    def grant(self, token: str) -> Grant | None:
        with self._lock:
            return self._grants.get(_digest(token))


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="replace")).digest()
