"""A push as lines of text: one for each stage record, with the time since the push. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sdk.records import Record

_STAGES = {
    ("queue", "ok"): "queued",
    ("fetch", "ok"): "fetched in {seconds:.1f} s",
    ("shrinkwrap", "ok"): "packed in {seconds:.1f} s",
    ("build", "ok"): "built in {seconds:.1f} s",
    ("build", "unchanged"): "image is there already",
    ("deploy", "ok"): "live in {seconds:.1f} s  {url}",
    ("deploy", "unchanged"): "unchanged  {url}",
    ("collect", "ok"): "tidied up",
    ("push", "ok"): "done: everything is live",
    ("push", "retry"): "waits",
    ("push", "superseded"): "superseded: a newer commit is being deployed",
}
# A check that finds nothing is not worth a line, nor is a function that waits for its turn.
_QUIET = frozenset({("check", "ok"), ("queue", "ok")})
_LOG_INDENT = "            | "


@dataclass(frozen=True)
class Timeline:
    """`started`: seconds since 1970 at the push."""

    started: float

    def lines(self, record: Record, now: float) -> Iterator[str]:
        """What to show of `record`; `now` in seconds since 1970."""
        if (record.stage, record.outcome) in _QUIET:
            return
        text = _STAGES.get((record.stage, record.outcome), "{stage} {outcome}")
        said = text.format(seconds=record.seconds, url=record.url, stage=record.stage, outcome=record.outcome)
        error = f": {record.error}" if record.error else ""
        subject = record.function or record.stage
        yield f"{now - self.started:6.1f} s  {subject:<16} {said.rstrip()}{error}"
        if not record.terminal:  # its log repeats what the functions' own records said
            yield from (f"{_LOG_INDENT}{line}" for line in record.log)


def verdict(record: Record) -> str:
    """Why a push failed, in one line; empty if it did not."""
    if record.outcome in ("ok", "superseded", "skipped"):
        return ""
    return " ".join((record.error or record.outcome).split())[:200]
