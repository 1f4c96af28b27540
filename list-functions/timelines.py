"""Pushes, as their stage records tell them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from .sdk.records import RECONCILE, TERMINAL_STAGE, Record, changed_nothing

# Nothing is heard of a push for so long: then no end of it will come.
LOST_SECONDS = 1800
GOOD = ("ok", "unchanged")
BAD = ("failed", "refused", "lost")
OPEN = ("queued", "running", "waiting")
_GIT_TAR = ("fetch", "shrinkwrap", TERMINAL_STAGE)
_OF_FUNCTIONS = ("queue", "shrinkwrap", "check", "build", "deploy")
# A repository may be tidied up, or leave, without a push.
_NO_PUSH = ("collect", "leave", "reconcile")

Stages = Mapping[str, Record]


@dataclass(frozen=True)
class Step:
    """`state`: todo, now, done, failed, or skipped; `at`, in seconds since 1970, is its end."""

    name: str
    state: str
    at: float = 0
    note: str = ""


@dataclass(frozen=True)
class Part:
    """One function of a push, with its own steps `built` and `deployed`."""

    function: str
    state: str
    said: str
    built: Step
    deployed: Step
    error: str = ""
    log: tuple[str, ...] = ()
    url: str = ""
    has_log: bool = False

    @property
    def is_building(self) -> bool:
        return self.built.state == "now"


@dataclass(frozen=True)
class Push:
    """`outcome`: queued, running, waiting, lost, or as its last record says; `ended` is 0 until it has."""

    delivery: str
    path: str
    owner: str
    repo: str
    sha: str
    begun: float
    ended: float
    outcome: str
    error: str = ""
    steps: tuple[Step, ...] = ()
    parts: tuple[Part, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def is_by_reconcile(self) -> bool:
        """Whether nobody pushed."""
        return self.delivery.startswith(RECONCILE)

    @property
    def is_open(self) -> bool:
        return self.outcome in OPEN

    @property
    def state(self) -> str:
        if self.is_open:
            return "now"
        return "done" if self.outcome == "ok" else "failed" if self.outcome in BAD else "skipped"


def pushes(records: Iterable[Record], owner: str, now: float) -> list[Push]:
    """The pushes of `owner` (`<scm>/<id>`, empty for everybody's), the newest first."""
    theirs = [each for each in records if each.path and (not owner or each.path.startswith(f"{owner}/"))]
    theirs.sort(key=lambda each: (each.delivery, each.path, each.time))
    groups = [list(group) for _, group in groupby(theirs, key=lambda each: (each.delivery, each.path))]
    found = [_push(group, now) for group in groups if _is_shown(group)]
    return sorted(found, key=lambda push: (push.begun, push.delivery), reverse=True)


def _is_shown(records: Sequence[Record]) -> bool:
    return any(each.stage not in _NO_PUSH for each in records) and not changed_nothing(records)


def _push(records: Sequence[Record], now: float) -> Push:
    """One delivery by its records, in the order of time."""
    first, newest = records[0], records[-1]
    sha = next((each.sha for each in reversed(records) if each.stage == "fetch"), newest.sha)
    stages = _latest(records, sha)
    of_all = stages.pop("", {})
    end = next((each for each in reversed(records) if each.ends), None)
    outcome, error = _outcome(records, now)
    is_open = outcome in OPEN
    begun = first.time - first.seconds
    parts = tuple(_part(function, told, is_open=is_open) for function, told in sorted(stages.items()))
    noted = [of_all[stage].log for stage in ("fetch", "collect") if stage in of_all]
    return Push(
        delivery=first.delivery,
        path=first.path,
        owner=newest.owner,
        repo=newest.repo,
        sha=sha,
        begun=begun,
        ended=end.time if end and not is_open else 0,
        outcome=outcome,
        error=error,
        steps=tuple(_steps(begun, of_all, parts, is_open=is_open)),
        parts=parts,
        notes=tuple(line for log in noted for line in log),
    )


def _latest(records: Iterable[Record], sha: str) -> dict[str, dict[str, Record]]:
    """The last record of each stage, by function. Of several passes the one of `sha` counts: it stays."""
    found: dict[str, dict[str, Record]] = {}
    for each in records:
        if each.sha not in (sha, "") and each.stage != "queue":
            continue
        stages = found.setdefault(each.function, {})
        before = stages.get(each.stage)
        # A push that is tried again finds done what it did before.
        if not (before and before.outcome == "ok" and each.outcome == "unchanged"):
            stages[each.stage] = each
    return found


def _outcome(records: Sequence[Record], now: float) -> tuple[str, str]:
    """git-tar has the last word: each function has a clock of its own, so theirs may seem later."""
    said = [each for each in records if each.stage in _GIT_TAR or each.ends]
    last = said[-1] if said else None
    if last and last.ends:
        return last.outcome, last.error
    if now - records[-1].time > LOST_SECONDS:
        return "lost", "no end of it was seen: what is live tells whether it went well"
    if last and last.stage == TERMINAL_STAGE:
        return "waiting", last.error
    return ("running" if last else "queued"), ""


def _steps(begun: float, of_all: Stages, parts: Sequence[Part], *, is_open: bool) -> Iterator[Step]:
    queue, fetch = of_all.get("queue"), of_all.get("fetch")
    is_turned_away = bool(queue and queue.outcome in BAD)
    yield Step("Queued", "failed" if is_turned_away else "done", queue.time if queue else begun)
    # Of what reconcile asks for, only a failed fetch is told.
    is_fetched = fetch.outcome in GOOD if fetch else bool(parts or "collect" in of_all)
    if fetch:
        yield Step("Fetched", "done" if is_fetched else "failed", fetch.time)
    else:
        yield Step("Fetched", "done" if is_fetched else "now" if is_open else "skipped")
    begins = "now" if is_open and is_fetched else "todo" if is_open else "skipped"
    failed = any(part.state == "failed" for part in parts)
    yield _joined("Built", [part.built for part in parts], begins, rest_failed=failed)
    waits = "todo" if is_open else "skipped"
    yield _joined("Deployed", [part.deployed for part in parts], waits, rest_failed=failed)


def _joined(name: str, steps: Sequence[Step], nothing: str, *, rest_failed: bool) -> Step:
    """A step of all functions; `nothing` if none is known. `rest_failed`: why some did not come so far."""
    if not steps:
        return Step(name, nothing)
    states = [step.state for step in steps]
    done = states.count("done")
    state = next((each for each in ("failed", "now", "todo", "skipped") if each in states), "done")
    state = "now" if state == "todo" and done else state
    state = "failed" if state == "skipped" and done and rest_failed else state
    notes = {step.note for step in steps}
    note = f"{done} of {len(steps)}" if len(steps) > 1 and (done or state != "skipped") else ""
    if state == "done" and len(notes) == 1:
        note = notes.pop() or note
    at = max(step.at for step in steps) if done or state == "failed" else 0
    at = 0 if state in ("now", "todo") else at
    return Step(name, state, at, note)


def _part(function: str, stages: Stages, *, is_open: bool) -> Part:
    build, deploy = stages.get("build"), stages.get("deploy")
    latest = max(stages.values(), key=lambda each: (each.time, _place(each)))
    is_live = bool(deploy and deploy.outcome in GOOD)
    if deploy and is_live and latest.outcome in GOOD:
        latest = deploy  # each function has a clock of its own, and a push that is tried again packs again
    goes_on = is_open and latest.outcome in GOOD
    built = _step("Built", build or (deploy if is_live else None), "now" if goes_on else "skipped")
    waits = "todo" if built.state == "now" else "now" if goes_on else "skipped"
    deployed = _step("Deployed", deploy, waits)
    ran = bool(build and build.outcome != "unchanged") or built.state == "now"
    state = "failed" if latest.outcome in BAD else "done" if is_live else "now" if goes_on else "skipped"
    return Part(
        function,
        state,
        _said(latest, built, is_open=goes_on),
        built,
        deployed,
        error=latest.error,
        log=tuple(latest.log) if state == "failed" else (),
        url=deploy.url if deploy and is_live else "",
        has_log=ran,
    )


def _place(record: Record) -> int:
    """Where its stage comes: two may end in the same millisecond."""
    return _OF_FUNCTIONS.index(record.stage) if record.stage in _OF_FUNCTIONS else -1


def _step(name: str, record: Record | None, otherwise: str) -> Step:
    if not record:
        return Step(name, otherwise)
    state = "done" if record.outcome in GOOD else "failed" if record.outcome in BAD else "skipped"
    return Step(name, state, record.time, "unchanged" if record.outcome == "unchanged" else "")


def _said(latest: Record, built: Step, *, is_open: bool) -> str:
    if latest.outcome in BAD:
        if latest.stage == "check":
            return "refused" if latest.outcome == "refused" else "check failed"
        return f"{_NOUNS.get(latest.stage, latest.stage)} {latest.outcome}"
    if latest.outcome not in GOOD:
        return "is tried again" if latest.outcome == "retry" else latest.outcome
    if latest.stage == "deploy":
        return "unchanged" if latest.outcome == "unchanged" else f"live in {latest.seconds:.1f} s"
    if built.state == "done":
        return "starts" if is_open else "built, not deployed"
    return "is being built" if is_open else "not built"


_NOUNS = {"shrinkwrap": "packing", "deploy": "start"}
