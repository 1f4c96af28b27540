"""HMAC-SHA256 signatures over the raw body, as GitHub has them.

https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries
"""

from __future__ import annotations

import hashlib
import hmac

from .errors import Unauthorized
from .secrets import Keys

PREFIX = "sha256="
GITHUB_HEADER = "X-Hub-Signature-256"
CLOUD_HEADER = "X-Cloud-Signature"
BUILDER_HEADER = "X-Build-Signature"


def sign(body: bytes, keys: Keys) -> str:
    """`sha256=<hex>`, with the first line of the secret."""
    return PREFIX + hmac.new(keys.signing, body, hashlib.sha256).hexdigest()


def verify(body: bytes, header: str | None, keys: Keys) -> None:
    """Raise `Unauthorized` unless `header` signs `body` with one of the secret's lines."""
    running = Running(keys)
    running.update(body)
    running.verify(header)


class Running:
    """The same over a body that arrives or leaves piece by piece."""

    def __init__(self, keys: Keys) -> None:
        self._digests = [hmac.new(line, digestmod=hashlib.sha256) for line in keys.lines]

    def update(self, piece: bytes) -> None:
        for digest in self._digests:
            digest.update(piece)

    def header(self) -> str:
        return PREFIX + self._digests[0].hexdigest()

    def verify(self, header: str | None) -> None:
        if not header:
            raise Unauthorized("the request is not signed")
        expected = [PREFIX + digest.hexdigest() for digest in self._digests]
        # Every line is compared, and as bytes: no early way out, no error for odd characters.
        matches = [hmac.compare_digest(header.encode(errors="replace"), text.encode()) for text in expected]
        if not any(matches):
            raise Unauthorized("the signature does not match")
