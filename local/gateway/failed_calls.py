"""Which failed calls are kept, and with how much of them. Pure.

Anybody may call a function, so anybody may fill the list: what a function refuses, and what was for no
function, never displaces a call that failed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Protocol

from sdk.signature import CLOUD_HEADER

UNAUTHORIZED = 401
# Client errors that are not about the call itself: conflicts, the user's code, a lock.
_NOT_REFUSED = frozenset({408, 409, 422, 423, 425, 429})


class Failed(Protocol):
    """What is known of a failed call."""

    id: int
    function: str
    status: int
    ended_at: float

    @property
    def kept_bytes(self) -> int:
        """What is kept of its body."""


def is_refused(status: int) -> bool:
    """Whether the function will not take this call, however often it is made."""
    return 400 <= status < 500 and status not in _NOT_REFUSED


def is_alarm(status: int, headers: Mapping[str, str]) -> bool:
    """Whether one of our functions does not know another's signature."""
    return status == UNAUTHORIZED and any(name.lower() == CLOUD_HEADER.lower() for name in headers)


def alarm(function: str, status: int, headers: Mapping[str, str]) -> str:
    """What the log says before it tells of such a call; empty for any other."""
    said = f"ALARM: an operator must act: {function} and who calls it must hold the same secrets: "
    return said if is_alarm(status, headers) else ""


def keeps_body(status: int, headers: Mapping[str, str]) -> bool:
    """A call that was refused can't be made again, but for one that only lacked the right secret."""
    return not is_refused(status) or is_alarm(status, headers)


def surplus(
    failed: Iterable[Failed],
    *,
    is_there: Callable[[str], bool],
    limit: int,
    limit_bytes: int,
    since: float,
) -> Collection[int]:
    """The ids of those that go: ended before `since`, or the oldest of more than `limit` of one kind.

    A kind is a function with whether it refused; all that is for no function is one kind. Above
    `limit_bytes` the oldest of the largest kind go.
    """
    kinds: dict[tuple[str, bool], list[Failed]] = {}
    gone: list[int] = []
    for call in sorted(failed, key=lambda call: (call.ended_at, call.id)):
        name = call.function if is_there(call.function) else ""
        kinds.setdefault((name, is_refused(call.status)), []).append(call)
    for calls in kinds.values():
        while calls and (len(calls) > limit or calls[0].ended_at < since):
            gone.append(calls.pop(0).id)
    sizes = {kind: sum(call.kept_bytes for call in calls) for kind, calls in kinds.items()}
    while sum(sizes.values()) > limit_bytes:
        largest = max(sizes, key=lambda kind: sizes[kind])
        call = kinds[largest].pop(0)
        sizes[largest] -= call.kept_bytes
        gone.append(call.id)
    return gone
