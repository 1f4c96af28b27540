"""Build secrets: sealed by the client for our public key, opened here, and handed to BuildKit.

The format is that of OpenFaaS's Go SDK (https://github.com/openfaas/go-sdk/tree/master/seal): each value is
base64(24 bytes nonce + NaCl box), made with a key pair of the sender's own.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass, field

from nacl.exceptions import CryptoError
from nacl.public import Box, PrivateKey, PublicKey

from sdk import secrets
from sdk.errors import Malformed, Misconfigured
from sdk.plain_yaml import mapping

ENTRY = "com.openfaas.secrets"
SECRET = "builder-private-key"  # noqa: S105 - its name
ALGORITHM = "nacl/box"
ENTRY_BYTES = 1024 * 1024
# It travels in an environment variable: Linux takes 128 KiB for one, name included.
VALUE_BYTES = 64 * 1024
MOST = 100
_NONCE_BYTES = 24
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")


@dataclass(frozen=True)
class Key:
    """Our key pair."""

    private: PrivateKey = field(repr=False)

    @classmethod
    def read(cls, folder: str) -> Key:
        """The secret `builder-private-key` (32 bytes in base64); without it, a pair for as long as we live.

        Several of-builders behind one address need the secret: each must open what is sealed for another.
        """
        given = secrets.find(SECRET, folder)
        if not given:
            return cls(PrivateKey.generate())
        try:
            return cls(PrivateKey(base64.b64decode(given.signing, validate=True)))
        except (ValueError, TypeError, CryptoError):
            raise Misconfigured(f"secret {SECRET} is not 32 bytes in base64") from None

    @property
    def public(self) -> str:
        return base64.b64encode(bytes(self.private.public_key)).decode()

    def describe(self) -> dict[str, str]:
        """The answer to `GET /publickey`."""
        return {"key_id": self.public[:8], "algorithm": ALGORITHM, "public_key": self.public}

    def open(self, envelope: bytes) -> dict[str, str]:
        """The secrets by name; `Malformed` for what was not sealed for this key."""
        rows = mapping(envelope, ENTRY, ENTRY_BYTES)
        if rows.get("version") != "v1" or rows.get("algorithm") != ALGORITHM:
            raise Malformed(f"{ENTRY}: only version v1 of {ALGORITHM} is known")
        sealed = rows.get("secrets") or {}
        if not isinstance(sealed, dict) or len(sealed) > MOST:
            raise Malformed(f"{ENTRY}: secrets is no map, or has more than {MOST} of them")
        try:
            box = Box(self.private, PublicKey(base64.b64decode(str(rows.get("public_key")), validate=True)))
        except (ValueError, TypeError, CryptoError):
            raise Malformed(f"{ENTRY}: public_key is not 32 bytes in base64") from None
        return {str(name): _open(box, str(name), value) for name, value in sealed.items()}


def _open(box: Box, name: str, value: object) -> str:
    if not _NAME.fullmatch(name):
        raise Malformed(f"{ENTRY}: {name[:100]!r} is no name of a secret")
    try:
        sealed = base64.b64decode(str(value).strip(), validate=True)
        text = box.decrypt(sealed[_NONCE_BYTES:], sealed[:_NONCE_BYTES]).decode()
    except (ValueError, TypeError, CryptoError):
        raise Malformed(
            f"{ENTRY}: {name} was not sealed for this builder's key: see GET /publickey, and seal it again"
        ) from None
    if "\0" in text or len(text.encode()) > VALUE_BYTES:
        raise Malformed(f"{ENTRY}: {name} has a NUL, or more than {VALUE_BYTES} bytes")
    return text
