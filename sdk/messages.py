"""The messages between our functions: signed JSON that says whom it is for and when it was made.

Every message carries, inside the signed body, `for` (the function that may act on it) and `at`
(seconds since 1970). No unsigned header decides anything.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec

from .errors import Malformed, Unauthorized
from .kinds import studied
from .secrets import Keys
from .signature import CLOUD_HEADER, sign, verify
from .stack import Function

T = TypeVar("T")

NO_COMMIT = "0" * 40


@dataclass(frozen=True)
class Owner:
    login: str
    id: int


@dataclass(frozen=True)
class Repository:
    """A repository as GitHub's events describe it; `id` is what stays when it is renamed."""

    id: int
    name: str
    full_name: str
    clone_url: str
    html_url: str
    private: bool
    owner: Owner


@dataclass(frozen=True)
class Installation:
    id: int


@dataclass(frozen=True)
class Push:
    """gh-push → git-tar: a hint that a branch may have moved. It orders no commit.

    `at`: when it was sealed, in seconds since 1970. `periodic`: nobody pushed, reconcile looks after the
    repository; a head that failed a moment ago is left alone.
    """

    scm: str
    delivery: str
    ref: str
    before: str
    after: str
    repository: Repository
    installation: Installation | None = None
    at: float = 0
    periodic: bool = False


@dataclass(frozen=True)
class Departure:
    """What may have left: repositories by id, or all of the owner's if none is named.

    `cause` is for people: GitHub's event and action. `installation` is 0 if the event names none.
    """

    cause: str
    owner: Owner
    installation: int = 0
    repositories: tuple[int, ...] = ()


@dataclass(frozen=True)
class Left:
    """gh-push → git-tar: a hint that repositories are no longer the App's. It orders nothing either."""

    scm: str
    delivery: str
    left: Departure
    at: float = 0


@dataclass(frozen=True)
class Template:
    """Where a function's template came from; empty for `lang: dockerfile`."""

    source: str = ""
    commit: str = ""


@dataclass(frozen=True)
class Shipment:
    """git-tar → buildshiprun: one function, in the tar's `com.openfaas.cloud.json`.

    `function` is as stack.yml has it, the operator's policy applied; `digest` is the context's. `sealed`:
    those of the function's secrets that are in secrets.yml, as they are there.
    """

    scm: str
    delivery: str
    repository: Repository
    ref: str
    sha: str
    function: Function
    digest: str
    template: Template = Template()
    sealed: Mapping[str, str] = field(default_factory=dict)

    @property
    def branch(self) -> str:
        return self.ref.removeprefix("refs/heads/")


@dataclass(frozen=True)
class Overtaken:
    """git-tar → buildshiprun: the branch has moved on from the commit `overtaken`, its builds may end."""

    scm: str
    delivery: str
    owner_id: int
    repo_id: int
    overtaken: str


@dataclass(frozen=True)
class Finish:
    """git-tar → buildshiprun: the whole stack is live; what is not in `keep` may go."""

    scm: str
    delivery: str
    owner: str
    owner_id: int
    repo: str
    repo_id: int
    sha: str
    keep: tuple[str, ...]


@dataclass(frozen=True)
class Closing:
    """The closing message as it is on the wire: `{"finish": {…}}`."""

    finish: Finish


@dataclass(frozen=True)
class Collect:
    """buildshiprun → garbage-collect: the original's garbage request, with ids.

    `functions` are names as stack.yml has them, with `.namespace` if one is named there. An empty list is
    refused, as absence deletes nothing, unless `uninstall` and the reason both say that the repository left.
    `dry_run` deletes nothing; `limit` is the operator's word for more than the setting delete_limit.
    """

    scm: str
    delivery: str
    owner: str
    owner_id: int
    repo: str
    repo_id: int
    functions: tuple[str, ...]
    sha: str
    reason: str
    uninstall: bool = False
    dry_run: bool = False
    limit: int | None = None


@dataclass(frozen=True)
class Asked:
    """Repositories by id, or all of an owner's if none is named."""

    owner_id: int = 0
    repositories: tuple[int, ...] = ()


@dataclass(frozen=True)
class Inventory:
    """git-tar → garbage-collect: which of these repositories have functions in the cluster?"""

    scm: str
    delivery: str
    inventory: Asked


@dataclass(frozen=True)
class Held:
    """A repository that has functions in the cluster, as their labels name it."""

    id: int
    name: str
    owner: str
    owner_id: int
    functions: tuple[str, ...]


@dataclass(frozen=True)
class Reconcile:
    """The operator → reconcile: look now, also at what failed a moment ago.

    `repository`: OWNER/NAME, all in turn if empty.
    """

    repository: str = ""


def seal(receiver: str, message: object, *, now: float | None = None) -> bytes:
    """The message's body. Sign exactly these bytes."""
    fields: dict[str, Any] = msgspec.to_builtins(message)
    return msgspec.json.encode({**fields, "for": receiver, "at": int(time.time() if now is None else now)})


def headers(body: bytes, keys: Keys) -> dict[str, str]:
    return {"Content-Type": "application/json", CLOUD_HEADER: sign(body, keys)}


def verified(body: bytes, headers: Mapping[str, str], keys: Keys) -> bytes:
    """The body, once its signature is found good; `Unauthorized` otherwise."""
    verify(body, headers.get(CLOUD_HEADER), keys)
    return body


def carries(body: bytes, field: str) -> bool:
    """Whether a verified message is the kind that has `field`: some receivers take several kinds."""
    try:
        return field in decode(body, dict[str, Any])
    except Malformed:
        return False


def unseal(body: bytes, receiver: str, kind: type[T], *, max_age: float | None = None) -> T:
    """Read a message whose signature was verified.

    Raises `Unauthorized` if it is for another function or older than `max_age` seconds, and
    `Malformed` for whatever is not a message of this kind.
    """
    envelope = decode(body, dict[str, Any])
    if envelope.get("for") != receiver:
        raise Unauthorized(f"the message is for {envelope.get('for')!r}, not for {receiver}")
    at = envelope.get("at")
    if not isinstance(at, (int, float)):
        raise Malformed("the message has no `at`")
    if max_age is not None and not -max_age <= time.time() - at <= max_age:
        raise Unauthorized("the message is too old, or the clocks differ: it is not acted on")
    try:
        return msgspec.convert(envelope, studied(kind))
    except (msgspec.MsgspecError, RecursionError) as error:
        raise Malformed(f"the message is not a {kind.__name__.lower()}: {error}") from None


def decode(body: bytes, kind: type[T]) -> T:
    """JSON bytes as `kind`, or `Malformed`; never another exception, whatever the bytes."""
    try:
        return msgspec.json.decode(body, type=studied(kind))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Malformed(f"the body is not the JSON that is expected: {error}") from None
