"""Everything that can go wrong, as one tree. The HTTP status is an attribute of the class.

CloudError                500  ours, and unexpected
├── Malformed             400  the bytes are not what the protocol says
├── Unauthorized          401  not signed by a key that we know
├── Refused               403  signed and well formed, but not allowed: owner, name, policy
├── Missing               404  no such branch, image or function
├── Superseded            409  a newer version has taken over
├── TooLarge              413  over a limit; the message says by how much
├── Failed                422  the user's code: stack.yml, Dockerfile, or a start that never got ready
├── Misconfigured         500  the operator's settings or secrets: nobody else can mend it
├── Upstream              502  a neighbour answered what its protocol doesn't allow
└── Unavailable           503  try again: what is sent twice ends the same
    └── Busy              503  the same, for want of a free hand: nothing is broken
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any

from .masking import masked

# Statuses that say: the same call may succeed later.
RETRIED = (408, 425, 429, 502, 503, 504)


class CloudError(Exception):
    """`message` tells the reader what to do next; `details` are shown beside it, as JSON.

    Neither shows credentials that are in a URL.
    """

    status = 500
    code = "internal"

    def __init__(self, message: str, *, details: Mapping[str, Any] | None = None) -> None:
        message = masked(message)
        super().__init__(message)
        self.message = message
        self.details = dict(details or {})
        if "log" in self.details:
            self.details["log"] = [masked(line) for line in self.details["log"]]

    def hide(self, values: Collection[str]) -> None:
        """Take `values` out of all that this error shows."""
        self.message = masked(self.message, values)
        self.args = (self.message,)
        if "log" in self.details:
            self.details["log"] = [masked(line, values) for line in self.details["log"]]

    def body(self) -> dict[str, Any]:
        """The one shape of an error on the wire: `{"error": {"code", "message", …}}`."""
        return {"error": {"code": self.code, "message": self.message, **self.details}}


class Malformed(CloudError):
    status, code = 400, "malformed"


class Unauthorized(CloudError):
    status, code = 401, "unauthorized"


class Refused(CloudError):
    status, code = 403, "refused"


class Missing(CloudError):
    status, code = 404, "missing"


class Superseded(CloudError):
    status, code = 409, "superseded"


class TooLarge(CloudError):
    status, code = 413, "too_large"


class Failed(CloudError):
    status, code = 422, "failed"


class Misconfigured(CloudError):
    status, code = 500, "misconfigured"


class Upstream(CloudError):
    status, code = 502, "upstream"


class Unavailable(CloudError):
    status, code = 503, "unavailable"

    def __init__(
        self, message: str, *, retry_after: int = 5, details: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(message, details=details)
        self.retry_after = retry_after


class Busy(Unavailable):
    code = "busy"


def received(who: str, status: int, body: bytes) -> CloudError:
    """The error that a neighbour's answer stands for: its class by status, its own message kept."""
    message, code, log = told(body) or (
        f"{who} answered {status}: {body[:500].decode(errors='replace').strip()}",
        "",
        [],
    )
    details = {"log": log} if log else None
    if status == Unauthorized.status:
        return Misconfigured(f"{message}; {who} and this function must hold the same secrets")
    for kind in (Upstream, Misconfigured):  # it said itself who is not as it should be
        if code == kind.code:
            return kind(message, details=details)
    if status in RETRIED:
        return (Busy if code == Busy.code else Unavailable)(message, details=details)
    kinds = {kind.status: kind for kind in (Refused, Missing, Superseded, TooLarge, Failed)}
    return kinds.get(status, Failed if status < 500 else Upstream)(message, details=details)


def answered(who: str, status: int, body: bytes) -> CloudError:
    """The same for a service of ours behind others: a 5xx that is not in our shape is not its own word.

    It was killed, say, and a gateway or a watchdog answered: it may work later.
    """
    error = received(who, status, body)
    return Unavailable(error.message) if status >= 500 and not told(body) else error


def told(body: bytes) -> tuple[str, str, list[str]] | None:
    """Message, code and log of an error in our shape; None for whatever is none."""
    try:
        error = json.loads(body)["error"]
        return str(error["message"]), str(error.get("code", "")), [str(line) for line in error.get("log", ())]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
