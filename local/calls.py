"""The calls in the local gateway's queue: a client of /system/queue, which is not OpenFaaS's."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from sdk.gateway import Gateway

FAILED = "failed"


class Queued(msgspec.Struct, frozen=True, rename="camel"):
    """A call as the gateway lists it, or the callback of one; times are RFC 3339."""

    id: int
    function: str
    state: str
    callback: bool = False
    call_id: str = ""
    delivery: str = ""
    repository: str = ""
    bytes: int = 0
    queued_at: str = ""
    attempts: int = 0
    status: int = 0
    error: str = ""
    next_try: str = ""
    ended_at: str = ""
    can_be_retried: bool = True


class Queue(Gateway):
    """/system/queue, which only the local gateway has."""

    @classmethod
    def at(cls, gateway: Gateway) -> Queue:
        return cls(gateway.url, gateway.auth, gateway.read_seconds)

    def calls(self) -> Sequence[Queued]:
        return msgspec.json.decode(self._call("GET", "/system/queue").content, type=list[Queued])

    def retry(self, number: int) -> None:
        self._call("POST", f"/system/queue/{number}")

    def drop(self, number: int) -> None:
        self._call("DELETE", f"/system/queue/{number}", retries=0)
