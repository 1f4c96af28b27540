"""A push as lines of text: one for each stage record, with the time since the push. Pure.

Everything that shows a push shows these lines: the git server's hook, `push`, `retry` and `trace`.
"""

from __future__ import annotations

from collections.abc import Iterator

from sdk.records import QUEUE_STAGE, Record
from sdk.telling import told

# A check that finds nothing is not worth a line, nor is a function that waits for its turn.
_QUIET = frozenset({("check", "ok")})
LOG_INDENT = "            | "
# A line that ends so is of what goes on, and stands until the next.
GOING_ON = " …"

# What begins when a stage has ended well; of the whole push, or of its function.
_NEXT = {
    QUEUE_STAGE: "waits in the queue",
    "fetch": "is packed",
    "shrinkwrap": "is sent to buildshiprun",
    "check": "is built",
    "build": "starts",
}
_PUSH = "the push"


class Timeline:
    """`started`: seconds since 1970 at the push."""

    def __init__(self, started: float) -> None:
        self.started = started
        self._doing: dict[str, str] = {}

    def lines(self, record: Record) -> Iterator[str]:
        """What to show of `record`."""
        self._note(record)
        if (record.stage, record.outcome) in _QUIET or (record.stage == QUEUE_STAGE and record.function):
            return
        said, *more = told(record).splitlines() or [""]
        subject = record.function or ("gh-push" if record.is_received else record.stage)
        yield f"{self._seconds(record.time):6.1f} s  {shown(subject):<16} {shown(said)}"
        yield from (f"{LOG_INDENT}{shown(line)}" for line in more)
        if not record.terminal:  # its log repeats what the functions' own records said
            yield from (f"{LOG_INDENT}{shown(line)}" for line in record.log)

    def going_on(self, now: float) -> str:
        """What is waited for at `now`, in seconds since 1970; empty if that is nothing."""
        doing = ", ".join(f"{shown(who)} {what}" for who, what in list(self._doing.items())[:3])
        return f"{self._seconds(now):6.1f} s  {doing}{GOING_ON}" if doing else ""

    def _seconds(self, at: float) -> float:
        return max(0, at - self.started)

    def _note(self, record: Record) -> None:
        if record.stage == "push":
            self._doing = {} if record.terminal else {_PUSH: "waits, and is tried again"}
            return
        goes_on = _NEXT.get(record.stage) if record.outcome in ("ok", "unchanged") else None
        if record.function:
            self._doing.pop(_PUSH, None)
        if goes_on:
            self._doing[record.function or _PUSH] = goes_on
        else:
            self._doing.pop(record.function or _PUSH, None)
        if not self._doing and record.stage == "deploy":
            self._doing[_PUSH] = "is tidied up"


def shown(text: str) -> str:
    """`text` without what a terminal would obey: authors' builds print what they like."""
    return "".join(char if char.isprintable() else "\ufffd" for char in text.expandtabs(4))


def verdict(record: Record) -> str:
    """Why a push failed, in one line; empty if it did not."""
    if record.outcome in ("ok", "superseded", "skipped"):
        return ""
    return " ".join(shown(" ".join((record.error or record.outcome).split())).split())[:200]
