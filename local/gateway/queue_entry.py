"""What is known of a queued call without its body: what the queue works with, and what is shown."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

import msgspec
from multidict import CIMultiDict

from sdk.signature import CLOUD_HEADER

from .proxy import CALL_ID
from .queue_store import Call

WAITING, WORKING, FAILED = "waiting", "working", "failed"
CALLBACKS = " callbacks"  # no name of a function ends like that
DELIVERY = "X-GitHub-Delivery"
_PRINTABLE = re.compile(r"[!-~]{1,100}")


class _Repository(msgspec.Struct, frozen=True):
    full_name: str = ""


class _Message(msgspec.Struct, frozen=True):
    """A message between our functions, as far as it says which repository it is about."""

    repository: _Repository = _Repository()


@dataclass
class Entry:
    """A call by its id; times in seconds since 1970.

    `turns`: how often running it was told to wait for its turn, which is no attempt.
    """

    id: int
    function: str
    call_id: str
    delivery: str
    repository: str
    size: int
    queued_at: float
    state: str = WAITING
    attempts: int = 0
    turns: int = 0
    status: int = 0
    error: str = ""
    next_try: float = 0
    ended_at: float = 0
    can_be_retried: bool = True
    key: str = ""
    is_callback: bool = False

    @classmethod
    def of(cls, number: int, call: Call, queued_at: float, *, failed: bool = False) -> Entry:
        headers = CIMultiDict(call.headers)
        return cls(
            id=number,
            function=call.function,
            call_id=_printable(headers.get(CALL_ID, "")),
            delivery=_printable(headers.get(DELIVERY, "")),
            repository=_repository(headers, call.body),
            size=call.size or len(call.body),
            queued_at=queued_at,
            state=FAILED if failed else WAITING,
            attempts=call.attempts,
            status=call.status,
            error=call.error,
            ended_at=call.ended_at,
            can_be_retried=call.whole,
            key=call.key,
            is_callback=call.is_callback,
        )

    @property
    def line(self) -> str:
        """Whose workers make it: receivers that are slow hold no call of the function up."""
        return self.function + CALLBACKS if self.is_callback else self.function

    def is_like(self, call: Call) -> bool:
        """Whether it is still to be made, and has the same key."""
        return self.state != FAILED and self.key == call.key

    @property
    def kept_bytes(self) -> int:
        return self.size if self.can_be_retried else 0

    def shown(self) -> Mapping[str, Any]:
        return {
            "id": self.id,
            "function": self.function,
            "callback": self.is_callback,
            "state": self.state,
            "callId": self.call_id,
            "delivery": self.delivery,
            "repository": self.repository,
            "bytes": self.size,
            "queuedAt": _iso(self.queued_at),
            "attempts": self.attempts,
            "status": self.status,
            "error": self.error,
            "nextTry": _iso(self.next_try) if self.state == WAITING else "",
            "endedAt": _iso(self.ended_at),
            "canBeRetried": self.can_be_retried,
        }


def _printable(text: str) -> str:
    return text if _PRINTABLE.fullmatch(text) else ""


def _repository(headers: Mapping[str, str], body: bytes) -> str:
    """OWNER/REPO of a signed message whose body is kept; empty for any other call."""
    if CLOUD_HEADER not in headers:
        return ""
    try:
        return _printable(msgspec.json.decode(body, type=_Message).repository.full_name)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return ""


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="seconds") if seconds else ""
