"""What GitHub is to show of a commit, by the stage records that there are of it. Pure.

Any order of the records, and any of them twice, ends the same. What is shown only goes forward: a completed
run is never touched, as GitHub has it; another conclusion is another run, which takes its place.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone

from .sdk.records import QUEUE_STAGE, RECONCILE, RERUN, TERMINAL_STAGE, Record

STACK = "stack-deploy"
# What we have made begins so: others' checks may have our names.
OURS, PUSH = "openfaas-cloud/", "push"
QUEUED, IN_PROGRESS, COMPLETED = "queued", "in_progress", "completed"
_RANK = (QUEUED, IN_PROGRESS, COMPLETED)
SUCCESS, FAILURE, NEUTRAL = "success", "failure", "neutral"
_CONCLUSIONS = {"ok": SUCCESS, "unchanged": SUCCESS, "failed": FAILURE, "refused": FAILURE}
_DONE = {
    "fetch": "fetched",
    "shrinkwrap": "packed",
    "check": "checked",
    "build": "built",
    "deploy": "live",
    "collect": "tidied up",
}
# GitHub takes a hundred writes a minute and not more: larger stacks are not told of every stage.
_FEW = 10
_ROWS = 50
TEXT_LIMIT, LOG_BYTES, TITLE_LIMIT, _REASON_BYTES = 65_535, 64_000, 140, 4_000
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f]")


@dataclass(frozen=True)
class Run:
    """A check run as it should be. `conclusion` is empty until it has one; `built`: the function
    whose build failed, and of-builder has the log.
    """

    name: str
    external_id: str
    status: str
    title: str
    summary: str
    started: float
    conclusion: str = ""
    completed: float = 0
    url: str = ""
    log: tuple[str, ...] = ()
    built: str = ""


@dataclass(frozen=True)
class Shown:
    """A check run as GitHub has it."""

    id: int
    name: str
    external_id: str
    status: str
    conclusion: str = ""
    title: str = ""


@dataclass(frozen=True)
class Change:
    """Make the run, or change the one that has the number."""

    run: Run
    id: int = 0


def attempt(delivery: str) -> str:
    """What a delivery adds to: a re-run is told of anew, all else is one and the same story of a commit."""
    return OURS + (delivery if delivery.startswith(RERUN) else PUSH)


def mends(delivery: str) -> bool:
    """Whether it was reconcile's look: it sees to whatever is shown last, of a re-run or not."""
    return delivery.startswith(RECONCILE)


def about(records: Iterable[Record], sha: str, delivery: str, asked: str = "") -> list[Record]:
    """The records of a commit's attempt, in order, each once; `asked`: what the delivery was sent for.

    A delivery that was sent for this commit and ended with another one has superseded it.
    """
    whole = {
        _key(record): record
        for record in records
        if mends(delivery) or attempt(record.delivery) == attempt(delivery)
    }
    found = [record for record in whole.values() if record.sha == sha]
    sent = {record.delivery for record in found if record.stage == QUEUE_STAGE and not record.function}
    sent |= {delivery} if asked == sha else set()
    began = min((record.time for record in found), default=0.0)
    found += [
        _overtaken(record, sha)
        for record in whole.values()
        if record.sha != sha and record.delivery in sent and record.terminal and record.time >= began
    ]
    return sorted(found, key=lambda record: (record.time, *map(str, _key(record))))


def wanted(records: Sequence[Record], delivery: str) -> dict[str, Run]:
    """What to show by the name of each run; `records` are what `about` found."""
    ended = next((record for record in reversed(records) if record.ends), None)
    names = list(dict.fromkeys(record.function for record in records if record.function))
    stack = [record for record in records if not record.function]
    runs = [_stack(records, ended)] if stack else []
    runs += [_function([each for each in records if each.function == name], ended) for name in names]
    return {run.name: replace(run, external_id=attempt(delivery)) for run in runs}


def plan(runs: Mapping[str, Run], shown: Collection[Shown], *, every_attempt: bool) -> list[Change]:
    """What to do so that GitHub shows the runs; nothing once it does.

    Only of this attempt, or of whichever is shown now. Where two replicas have made the same run at once, the
    newer one goes on.
    """
    changes: list[Change] = []
    for run in runs.values():
        there = [
            each
            for each in shown
            if each.name == run.name
            and (each.external_id.startswith(OURS) if every_attempt else each.external_id == run.external_id)
        ]
        latest = max(there, key=lambda each: each.id, default=None)
        changes += [_closed(run, each) for each in there if each != latest and each.status != COMPLETED]
        if latest is None or (run.conclusion and latest.conclusion not in ("", run.conclusion)):
            changes.append(Change(run))
        elif _is_news(run, latest, len(runs) <= _FEW):
            changes.append(Change(run, latest.id))
    return changes


def _is_news(run: Run, shown: Shown, every_stage: bool) -> bool:
    before = _RANK.index(shown.status) if shown.status in _RANK else 0
    after = _RANK.index(run.status)
    if shown.status == COMPLETED or after < before:
        return False
    return after > before or (every_stage and run.title != shown.title)


def _closed(run: Run, shown: Shown) -> Change:
    title = "told of in another check"
    return Change(
        replace(
            run, status=COMPLETED, conclusion=NEUTRAL, title=title, summary=title, log=(), url="", built=""
        ),
        shown.id,
    )


def _stack(records: Sequence[Record], ended: Record | None) -> Run:
    own = [record for record in records if not record.function]
    began, last = records[0].time, own[-1]
    summary = _notes(own) + _summary(own)
    if ended:
        conclusion = _CONCLUSIONS.get(ended.outcome, NEUTRAL)
        title = {
            SUCCESS: f"everything is live after {ended.time - began:.0f} s",
            FAILURE: f"failed: {ended.error}",
            NEUTRAL: f"{ended.outcome}: {ended.error or 'a newer commit is being deployed'}",
        }[conclusion]
        summary = _reason(ended.error) + summary
        return _completed(STACK, conclusion, title, summary, began, ended, log=tuple(ended.log))
    if last.outcome == "retry":
        title, summary = f"waits: {last.error}", _reason(last.error) + summary
    else:
        title = "queued" if last.stage == QUEUE_STAGE else _said(last)
    at_work = any(record.stage not in (QUEUE_STAGE, TERMINAL_STAGE) or record.function for record in records)
    status = IN_PROGRESS if at_work else QUEUED
    return Run(STACK, "", status, line(title), summary, began)


def _function(records: Sequence[Record], ended: Record | None) -> Run:
    name, began, last = records[0].function, records[0].time, records[-1]
    name = f"{name} (function)" if name == STACK else name
    summary = _summary(records)
    url = next((record.url for record in reversed(records) if record.url), "")
    decided = next((record for record in reversed(records) if _decides(record)), None)
    if ended and ended.outcome == "ok" and (not decided or _is_live(decided) or decided.time <= ended.time):
        decided = decided if decided and _is_live(decided) else replace(ended, url=url)
    if decided and decided.outcome in _CONCLUSIONS:
        conclusion = _CONCLUSIONS[decided.outcome]
        if conclusion == SUCCESS:
            said = "is unchanged" if decided.outcome == "unchanged" else "is live"
            title = f"{said}: {url}" if url else said
            return _completed(name, conclusion, title, summary, began, decided, url=url)
        title = f"{decided.stage} {decided.outcome}: {decided.error}"
        summary = _reason(decided.error) + summary
        built = decided.function if decided.stage == "build" else ""
        return _completed(name, FAILURE, title, summary, began, decided, log=tuple(decided.log), built=built)
    if decided or ended:
        final = decided or ended
        assert final
        title = "superseded" if final.outcome == "superseded" else "not deployed: see stack-deploy"
        return _completed(name, NEUTRAL, title, _reason(final.error) + summary, began, final)
    if last.stage == QUEUE_STAGE:
        return Run(name, "", QUEUED, "queued", summary, began)
    title = f"waits: {last.error}" if last.outcome == "retry" else _said(last)
    return Run(name, "", IN_PROGRESS, line(title), summary, began)


def _decides(record: Record) -> bool:
    return _is_live(record) or record.outcome in ("failed", "refused", "superseded")


def _is_live(record: Record) -> bool:
    return record.stage == "deploy" and _CONCLUSIONS.get(record.outcome) == SUCCESS


def _completed(
    name: str,
    conclusion: str,
    title: str,
    summary: str,
    began: float,
    final: Record,
    *,
    url: str = "",
    log: tuple[str, ...] = (),
    built: str = "",
) -> Run:
    return Run(
        name, "", COMPLETED, line(title), summary, began, conclusion, max(began, final.time), url, log, built
    )


def _overtaken(record: Record, sha: str) -> Record:
    said = f"the branch was at {record.sha[:10]} when this push had its turn"
    return replace(record, sha=sha, outcome="superseded", error=said, log=[])


def _said(record: Record) -> str:
    return f"{_DONE.get(record.stage, record.stage)} in {record.seconds:.1f} s"


def _summary(records: Sequence[Record]) -> str:
    rows = [record for record in records if record.stage != QUEUE_STAGE][-_ROWS:]
    lines = [f"| {_cell(row.stage)} | {_cell(row.outcome)} | {row.seconds:.1f} |" for row in rows]
    table = ["| stage | outcome | seconds |", "|---|---|---|", *lines] if lines else []
    urls = [row.url for row in rows if row.url]
    return "\n".join([*([urls[-1], ""] if urls else []), *table])


def _cell(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9 ._-]", "", text)


def _notes(records: Sequence[Record]) -> str:
    """What the fetch tells the author though nothing fails: what of stack.yml is ignored, say."""
    lines = dict.fromkeys(line for record in records if record.stage == "fetch" for line in record.log)
    return _reason("\n".join(lines))


def _reason(error: str) -> str:
    return fenced(error, _REASON_BYTES) + "\n\n" if error else ""


def line(text: str, limit: int = TITLE_LIMIT) -> str:
    """One line of at most as much as a commit status takes."""
    whole = " ".join(cleaned(text).split())
    return whole if len(whole) <= limit else whole[: limit - 1] + "…"


def cleaned(text: str) -> str:
    """Without what moves a terminal's cursor or colours it."""
    return _CONTROL.sub("", text)


def fenced(text: str, limit: int = LOG_BYTES) -> str:
    """The end of `text` as a block of code that nothing in it ends; at most `limit` bytes and the fences."""
    text = cleaned(text).encode(errors="replace")[-limit:].decode(errors="ignore")
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    if 2 * (longest + 1) + len(text) + 2 > TEXT_LIMIT:  # nothing but backticks, say
        text, longest = text.replace("`", "'"), 0
    fence = "`" * max(3, longest + 1)
    return f"{fence}\n{text}\n{fence}"


def stamp(seconds: float) -> str:
    """As GitHub takes times."""
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def _key(record: Record) -> tuple[str, str, str, str, str, str]:
    return record.at, record.delivery, record.sha, record.function, record.stage, record.outcome
