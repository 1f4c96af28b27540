"""An author's secret, sealed for the cloud's public key and one repository.

Anybody can seal, only who holds the secret `seal-key` can open. Where it may be used is sealed with it:
a copy in another repository is refused.
https://pynacl.readthedocs.io/en/latest/public/#nacl-public-sealedbox
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, field

import msgspec
from nacl.exceptions import CryptoError
from nacl.public import PrivateKey, PublicKey, SealedBox

from . import naming, secrets
from .errors import Failed, Malformed, Misconfigured
from .kinds import studied

SECRET = "seal-key"  # noqa: S105 - its name
VALUE_BYTES = 64 * 1024
_AGAIN = "seal it again, by `python -m local seal`"


@dataclass(frozen=True)
class Home:
    """The repository that a secret is for, by ids: names are given to others in time."""

    scm: str
    owner_id: int
    repo_id: int


class _Content(msgspec.Struct, frozen=True):
    scm: str
    owner_id: int
    repo_id: int
    name: str
    value: str

    def __repr__(self) -> str:
        return f"<sealed {self.name}>"


def seal(public: str, name: str, value: str, home: Home) -> str:
    """`value` as text that only the holder of the private key can read; `Malformed` if it can't be sealed."""
    if not naming.is_secret(name):
        raise Malformed(f"{name!r} is no name of a secret: use a-z, 0-9, dashes and dots")
    if problem := _problem(value):
        raise Malformed(f"{name} {problem}")
    try:
        key = PublicKey(base64.b64decode(public, validate=True))
    except (ValueError, TypeError, CryptoError):
        raise Malformed("the key is not 32 bytes in base64: GET /function/buildshiprun has it") from None
    content = _Content(home.scm, home.owner_id, home.repo_id, name, value)
    return base64.b64encode(SealedBox(key).encrypt(msgspec.json.encode(content))).decode()


@dataclass(frozen=True)
class SealKeys:
    """The key pairs of the secret: the first one's public key is told, all open."""

    pairs: tuple[PrivateKey, ...] = field(repr=False)

    @classmethod
    def find(cls, folder: str) -> SealKeys | None:
        """The secret `seal-key`, each line 32 bytes in base64; None where there is none."""
        given = secrets.find(SECRET, folder)
        if not given:
            return None
        try:
            return cls(tuple(PrivateKey(base64.b64decode(line, validate=True)) for line in given.lines))
        except (ValueError, TypeError, CryptoError):
            raise Misconfigured(f"secret {SECRET} has a line that is not 32 bytes in base64") from None

    @property
    def public(self) -> str:
        return base64.b64encode(bytes(self.pairs[0].public_key)).decode()

    def open(self, name: str, sealed: str, home: Home) -> str:
        """The value; `Failed`, without a word of what is inside, unless it is this name's and this home's."""
        content = self._content(name, sealed)
        if Home(content.scm, content.owner_id, content.repo_id) != home:
            raise Failed(
                f"secret {name} was sealed for another repository, or for another owner of it: {_AGAIN}"
            )
        if content.name != name:
            raise Failed(f"secret {name} was sealed under another name: {_AGAIN}")
        if problem := _problem(content.value):
            raise Failed(f"secret {name} {problem}")
        return content.value

    def _content(self, name: str, sealed: str) -> _Content:
        for pair in self.pairs:
            try:
                plain = SealedBox(pair).decrypt(base64.b64decode("".join(sealed.split()), validate=True))
                return msgspec.json.decode(plain, type=studied(_Content))
            except (ValueError, TypeError, CryptoError, msgspec.MsgspecError):
                continue
        raise Failed(f"secret {name} was not sealed for this cloud's key, or is damaged: {_AGAIN}")


def _problem(value: str) -> str:
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        return "is no text: encode it, for example with base64"
    return "" if 0 < size <= VALUE_BYTES else f"has {size} bytes: from 1 to {VALUE_BYTES} are allowed"
