"""The queue's calls on disk: those that wait, and those that failed for good."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
from persistqueue import SQLiteAckQueue
from persistqueue.sqlackqueue import AckStatus

BODY_LIMIT = 256_000
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


class Call(msgspec.Struct, frozen=True):
    """One call of a function as it was asked for, how often it was tried, and what that ended with.

    `ended_at`, in seconds since 1970, is of one that failed for good; one that was refused is not `whole`:
    its body is not kept. While one with a `key` waits or is made, others with the same key are left out.
    A callback tells of a call's end: `function` is whose call that was, `target` the whole URL.
    """

    function: str
    target: str
    headers: Mapping[str, str]
    body: bytes = b""
    attempts: int = 0
    status: int = 0
    error: str = ""
    ended_at: float = 0
    size: int = 0
    whole: bool = True
    key: str = ""
    is_callback: bool = False

    def __repr__(self) -> str:
        return f"<call of {self.function}, {len(self.body)} bytes, {self.attempts} attempts>"


def kept(headers: Mapping[str, str]) -> dict[str, str]:
    """Those that can be written down and sent: bytes that are no UTF-8 can't be, nor control characters."""
    return {name: text for name, text in headers.items() if _is_text(text)}


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return not _CONTROL.search(text)


class Row(msgspec.Struct, frozen=True):
    id: int
    call: Call
    queued_at: float
    failed: bool


class _Serializer:
    """How persist-queue writes a call; its default is pickle."""

    @staticmethod
    def dumps(call: Call) -> bytes:
        return msgspec.msgpack.encode(call)

    @staticmethod
    def loads(data: bytes) -> Call:
        return msgspec.msgpack.decode(data, type=Call)


class Store(SQLiteAckQueue):
    """persist-queue's table, read by id: which call is next is the queue's matter.

    Its own `get` would keep the bodies of all that wait in memory, and wait for ever for an id that is gone.
    """

    _SQL_DELETE = "DELETE FROM {table_name} WHERE {key_column} {op} ?"

    def __init__(self, path: str) -> None:
        super().__init__(path, multithreading=True, serializer=_Serializer, auto_resume=True)

    def add(self, call: Call) -> int:
        number = self.put(call)
        assert number is not None
        return number

    def rows(self) -> Iterator[Row]:
        """All calls, one at a time: their bodies don't fit in memory together."""
        for number, data, queued_at, status in self._sql_queue():
            if str(status) != AckStatus.acked:
                failed = str(status) == AckStatus.ack_failed
                yield Row(number, _Serializer.loads(data), queued_at, failed)

    def call(self, number: int) -> Call | None:
        row: Any = self._select(rowid=number)
        return _Serializer.loads(row[1]) if row else None

    def change(self, number: int, call: Call) -> None:
        self.update(call, id=number)

    def fail(self, number: int, call: Call) -> None:
        """The call has failed for good. Were it cut in the middle, the call would be made once more."""
        self.update(call, id=number)
        self.ack_failed(id=number)

    def again(self, number: int, call: Call) -> None:
        self.update(call, id=number)
        self.nack(id=number)

    def remove(self, number: int) -> None:
        self._delete(number)

    def remove_acked(self) -> None:
        """What earlier versions kept of calls that have succeeded."""
        self.clear_acked_data(max_delete=0, keep_latest=0)
