"""What a function logs for its operator, on stderr: one line each, as JSON or as text (`log_format`).

Stage records are no part of this: they are JSON on stdout whatever the setting, for other programs read them.
As text, each has a line for people beside it. What an author wrote never passes for a line or a record of its
own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextvars import ContextVar
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from .errors import CloudError, Misconfigured
from .lines import STDERR
from .masking import masked
from .settings import Logging, read
from .telling import told

if TYPE_CHECKING:
    from .records import Record

CALL_HEADER = "X-Call-Id"
# The id that the gateway gave to the call that this thread works on: it is shown, and decides nothing.
CALL: ContextVar[str] = ContextVar("call", default="")
# The end of a trace, and the beginning of a message.
TRACE_LENGTH, MESSAGE_LENGTH = 4_000, 2_000


def settings() -> Logging:
    """Those that can't be read are just what has to be logged: then the defaults."""
    try:
        return read(Logging)
    except Misconfigured:
        return Logging()


def called(headers: Mapping[str, str]) -> None:
    """Remember the call's id; one that is none of a gateway's is not repeated."""
    given = headers.get(CALL_HEADER) or ""
    CALL.set(given if re.fullmatch(r"[A-Za-z0-9._-]{1,64}", given) else "")


def refused(function: str, error: CloudError, trace: str = "") -> None:
    """Log what a call was answered with, and where an unexpected error came from."""
    alarm = "ALARM: an operator must act: " if isinstance(error, Misconfigured) else ""
    trace = masked(trace)[-TRACE_LENGTH:]
    if settings().log_format == "text":
        about = f" (call {CALL.get()})" if CALL.get() else ""
        said = json.dumps(error.message[:MESSAGE_LENGTH])
        STDERR.put(f"{function}: {alarm}{error.status} {error.code}: {said}{about}")
        for line in trace.splitlines():
            STDERR.put(f"{function}: | {plain(line)}")
        return
    _say_json(
        function,
        (alarm + error.message)[:MESSAGE_LENGTH],
        status=error.status,
        code=error.code,
        call=CALL.get(),
        trace=trace,
    )


def noted(source: str, message: str) -> None:
    """Log what concerns no single call."""
    if settings().log_format == "text":
        STDERR.put(f"{source}: {plain(message)}")
    else:
        _say_json(source, message)


def beside(record: Record) -> None:
    """The line for people beside a stage record, where the operator wants text."""
    if settings().log_format != "text":
        return
    commit = f"{record.owner}/{record.repo}@{record.sha[:10]}".strip("/@")
    call = f", call {record.call}" if record.call else ""
    subject = f"{record.function or record.stage}: {plain(told(record))}"
    STDERR.put(
        f"{record.at} {commit} {subject} ({record.seconds:.1f} s, delivery {plain(record.delivery)}{call})"
    )
    for line in record.log:
        STDERR.put(f"  | {plain(line)}")


def plain(text: str) -> str:
    """`text`, as JSON if it holds what could be taken for another line or a record."""
    return text if text.isprintable() and "{" not in text else json.dumps(text)


def _say_json(source: str, message: str, **more: object) -> None:
    at = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
    rows = {"at": at, "from": source, **more, "message": message}
    STDERR.put(json.dumps({name: value for name, value in rows.items() if value}))
