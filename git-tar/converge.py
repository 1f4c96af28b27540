"""Make the cluster match the branch. Level-triggered: no commit is an order, only the head counts.

The head is read again after the last write, so that whatever the order of events, what stays is the
stack at the head; what has written nothing since its last look need not look again. The loop itself
knows neither git nor HTTP: tests run it against a model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from .sdk.errors import CloudError, Misconfigured, Refused, Unavailable


@dataclass(frozen=True)
class Result:
    """What became of one function: `outcome` as in its stage record, and where it answers."""

    name: str
    outcome: str
    url: str = ""
    error: str = ""

    @property
    def ok(self) -> bool:
        return self.outcome in ("ok", "unchanged")


@dataclass(frozen=True)
class Report:
    """What a push ended with: for the commit `sha`, each function's result and what was removed."""

    sha: str
    outcome: str
    results: tuple[Result, ...] = ()
    removed: tuple[str, ...] = ()
    error: str = ""


@dataclass(frozen=True)
class Tidied:
    """The names of what was removed; `whole` unless an answer was lost, and with it what had been removed."""

    removed: tuple[str, ...] = ()
    whole: bool = True

    @property
    def has_written(self) -> bool:
        return bool(self.removed) or not self.whole


class Branch(Protocol):
    """The branch and the cluster, as the loop needs them."""

    def head(self) -> str | None:
        """The commit that the branch is at now, None if there is no such branch."""

    def apply(self, sha: str) -> Sequence[Result]:
        """Ship every function of the stack at `sha`. Raises for what concerns the whole stack."""

    def finish(self, sha: str, keep: Sequence[str]) -> Tidied:
        """Remove what is not in `keep`."""

    def report(self, report: Report) -> None:
        """Say what a pass ended with."""


def converge(branch: Branch, rounds: int) -> Report:
    """Follow the branch until a pass ends with the head where it began; each pass is reported.

    Raises `Unavailable` when the branch moves for more than `rounds` passes, or when something may
    work later: the queue then brings the push back.
    """
    for _ in range(rounds):
        head = branch.head()
        if head is None:
            gone = Report("", "skipped", error="the branch is gone: what is deployed stays")
            branch.report(gone)
            return gone
        passed = _pass(branch, head)
        branch.report(passed)
        if passed.outcome != "superseded":
            return passed
    raise Unavailable(f"the branch moved {rounds} times while it was deployed")


def _pass(branch: Branch, head: str) -> Report:
    """What became of the commit `head`: superseded unless a look after the last write still shows it."""
    shipped = _shipped(branch, head)
    if shipped.outcome == "superseded" or branch.head() != head:
        return Report(head, "superseded")
    if shipped.outcome != "ok":
        return shipped
    # Collect only what this head's stack leaves out.
    passed, has_written = _collected(branch, shipped)
    if has_written and branch.head() != head:
        return Report(head, "superseded")
    return passed


def _shipped(branch: Branch, head: str) -> Report:
    try:
        results = tuple(branch.apply(head))
    except (Unavailable, Misconfigured):
        raise
    except CloudError as error:
        return Report(head, "failed", error=error.message)
    if any(result.outcome == "superseded" for result in results):
        return Report(head, "superseded", results)  # not all of it was tried
    broken = [result for result in results if not result.ok]
    if broken:
        return Report(head, "failed", results, error=_summary(broken, len(results)))
    return Report(head, "ok", results)


def _collected(branch: Branch, shipped: Report) -> tuple[Report, bool]:
    """The report with what was removed, and whether anything may have been."""
    try:
        tidied = branch.finish(shipped.sha, [result.name for result in shipped.results])
    except Refused as error:
        return replace(shipped, outcome="failed", error=f"everything is live, but {error.message}"), True
    return replace(shipped, removed=tidied.removed), tidied.has_written


def _summary(broken: Sequence[Result], total: int) -> str:
    names = ", ".join(result.name for result in broken)
    others = "the others are live, " if len(broken) < total else ""
    return f"{len(broken)} of {total} functions failed: {names}; {others}nothing was removed"
