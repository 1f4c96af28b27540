"""What a stage record says to people, in a few words. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .records import Record

_STAGES = {
    ("queue", "ok"): "queued",
    ("fetch", "ok"): "fetched in {seconds:.1f} s",
    ("shrinkwrap", "ok"): "packed in {seconds:.1f} s",
    ("check", "ok"): "may be deployed",
    ("build", "ok"): "built in {seconds:.1f} s",
    ("build", "unchanged"): "image is there already",
    ("deploy", "ok"): "live in {seconds:.1f} s  {url}",
    ("deploy", "unchanged"): "unchanged  {url}",
    ("collect", "ok"): "tidied up",
    ("push", "ok"): "done: everything is live",
    ("push", "retry"): "waits",
    ("push", "superseded"): "superseded: a newer commit is being deployed",
}


def told(record: Record) -> str:
    """What became of the stage: `built in 1.1 s`, `deploy failed: …`."""
    text = _STAGES.get((record.stage, record.outcome), "{stage} {outcome}")
    said = text.format(seconds=record.seconds, url=record.url, stage=record.stage, outcome=record.outcome)
    return said.rstrip() + (f": {record.error}" if record.error else "")
