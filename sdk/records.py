"""Stage records: each stage of a push prints one JSON line to stdout.

The push hook, the command line and whoever reads `/system/logs` follow a push by them; there is no
other bookkeeping. A line stays under 12 KiB, so that no log driver splits it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import TypeVar

import msgspec

from . import audit, logs, naming
from .errors import CloudError, Refused, Superseded, Unavailable
from .kinds import studied
from .lines import STDOUT
from .masking import masked

LOG_BYTES = 8_000
ERROR_BYTES = 2_000
TERMINAL_STAGE = "push"
# What a function is in until its turn comes; of the stack: gh-push has handed it over.
QUEUE_STAGE = "queue"
# Deliveries that are not GitHub's own begin so: nobody pushed, and somebody asked for a push again.
RECONCILE, RERUN = "reconcile-", "rerun-"

A = TypeVar("A")
B = TypeVar("B")


@dataclass(frozen=True)
class Subject:
    """Whose stage it is: the delivery, the repository and the commit.

    `asked`: the commit that the delivery was sent for.
    """

    delivery: str
    owner: str
    repo: str
    sha: str
    scm: str = ""
    owner_id: int = 0
    repo_id: int = 0
    asked: str = ""

    @property
    def path(self) -> str:
        """The repository by ids, `<scm>/<owner id>/<repo id>`: names may be another's by now."""
        return naming.repository_path(self.scm, self.owner_id, self.repo_id) if self.repo_id else ""


@dataclass(frozen=True)
class Record:
    """`outcome`: ok, unchanged, failed, refused, superseded, skipped or retry; `seconds` it took.

    `call` is the id that the gateway gave to the call.
    """

    at: str
    delivery: str
    owner: str
    repo: str
    sha: str
    function: str
    stage: str
    outcome: str
    seconds: float
    error: str = ""
    log: list[str] = field(default_factory=list)
    url: str = ""
    path: str = ""
    call: str = ""

    @property
    def is_received(self) -> bool:
        """Whether it is gh-push's, of a push that came."""
        return self.stage == QUEUE_STAGE and not self.function

    @property
    def ends(self) -> bool:
        """Whether nothing of the push follows: it is git-tar's last word, or gh-push has turned it away."""
        return self.terminal or (self.is_received and self.outcome in ("failed", "refused"))

    @property
    def time(self) -> float:
        """`at` in seconds since 1970."""
        return datetime.fromisoformat(self.at).timestamp()

    @property
    def terminal(self) -> bool:
        """Whether this is the push's last word."""
        return self.stage == TERMINAL_STAGE and self.outcome != "retry"


@dataclass
class Stage:
    """What a stage may say of itself before it ends. `silent`: if it ends well, no record is printed."""

    outcome: str = "ok"
    log: list[str] = field(default_factory=list)
    url: str = ""
    silent: bool = False


# Who hears each record of this process once it is printed. They must neither wait nor raise.
listeners: list[Callable[[Record, Subject], None]] = []


@contextmanager
def stage(name: str, subject: Subject, function: str = "", *, hide: Collection[str] = ()) -> Iterator[Stage]:
    """Time a stage and print its record, also when it raises.

    The values `hide` show neither in the record nor in the error.
    """
    told, started, error = Stage(), time.monotonic(), ""
    try:
        yield told
    except Exception as raised:
        if isinstance(raised, CloudError):
            raised.hide(hide)
        told.outcome, error = outcome_of(raised), masked(str(raised), hide)
        if isinstance(raised, CloudError):
            told.log = told.log or list(raised.details.get("log", ()))
        raise
    finally:
        told.log = [masked(line, hide) for line in told.log]
        if not (told.silent and told.outcome == "ok"):
            emit(name, subject, function, told, time.monotonic() - started, error)


def outcome_of(error: Exception) -> str:
    if isinstance(error, Superseded):
        return "superseded"
    if isinstance(error, Unavailable):
        return "retry"
    return "refused" if isinstance(error, Refused) else "failed"


def emit(name: str, subject: Subject, function: str, told: Stage, seconds: float, error: str = "") -> None:
    record = Record(
        at=datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
        delivery=subject.delivery,
        owner=subject.owner,
        repo=subject.repo,
        sha=subject.sha,
        function=function,
        stage=name,
        outcome=told.outcome,
        seconds=round(seconds, 3),
        error=clipped(masked(error)),
        log=tail([masked(line) for line in told.log[-LOG_BYTES:]]),
        url=told.url,
        path=subject.path,
        call=logs.CALL.get(),
    )
    line = msgspec.json.encode(record)
    STDOUT.put(line.decode())
    logs.beside(record)
    if url := logs.settings().audit_url:
        audit.send(url, line)
    for listener in listeners:
        listener(record, subject)


def of_this_call(work: Callable[[A], B]) -> Callable[[A], B]:
    """`work` for other threads, whose records are of this thread's call."""
    call = logs.CALL.get()

    def in_thread(given: A) -> B:
        logs.CALL.set(call)
        return work(given)

    return in_thread


def changed_nothing(delivery: Sequence[Record]) -> bool:
    """Whether these records of one delivery are of reconcile, which found everything as it should be."""
    if any(not record.delivery.startswith(RECONCILE) or _tells_of_work(record) for record in delivery):
        return False
    shipped = {record.function for record in delivery if record.stage == "check"}
    settled = {record.function for record in delivery if record.stage in ("build", "deploy")}
    return shipped <= settled or any(record.ends for record in delivery)


def _tells_of_work(record: Record) -> bool:
    if record.outcome in ("failed", "refused"):
        return True
    return record.outcome == "ok" and (
        record.stage in ("build", "deploy") or (record.stage == "collect" and bool(record.log))
    )


def clipped(text: str, limit: int = ERROR_BYTES) -> str:
    """The beginning of `text` that takes at most `limit` bytes as JSON."""
    text = text[:limit].encode(errors="backslashreplace").decode()
    while len(msgspec.json.encode(text)) > limit + len('""'):
        text = text[: len(text) * 3 // 4]
    return text


def tail(lines: list[str], limit: int = LOG_BYTES) -> list[str]:
    """The last lines that take at most `limit` bytes as JSON; a longer line is cut at its end."""
    kept: list[str] = []
    room = limit
    for line in reversed(lines):
        line = line[:500].encode(errors="backslashreplace").decode()
        room -= len(msgspec.json.encode(line)) + 1
        if room < 0:
            break
        kept.append(line)
    return kept[::-1]


def parse(text: str) -> Record | None:
    """The record in a log line, or None: a watchdog may put a prefix, and others log there too."""
    start = text.find("{")
    if start < 0:
        return None
    try:
        record = msgspec.json.decode(text[start:].strip(), type=studied(Record))
        return record if record.time else None
    except (msgspec.MsgspecError, ValueError, OverflowError, RecursionError):
        return None
