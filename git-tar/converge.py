"""Make the cluster match the branch. Level-triggered: no commit is an order, only the head counts.

The head is read again after the last write, so that whatever the order of events, what stays is the
stack at the head. The loop itself knows neither git nor HTTP: tests run it against a model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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


class Branch(Protocol):
    """The branch and the cluster, as the loop needs them."""

    def head(self) -> str | None:
        """The commit that the branch is at now, None if there is no such branch."""

    def apply(self, sha: str) -> Sequence[Result]:
        """Ship every function of the stack at `sha`. Raises for what concerns the whole stack."""

    def finish(self, sha: str, keep: Sequence[str]) -> Sequence[str]:
        """Remove what is not in `keep`; returns the names of what was removed."""

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
        if branch.head() == head and passed.outcome != "superseded":
            branch.report(passed)
            return passed
        branch.report(Report(head, "superseded"))
    raise Unavailable(f"the branch moved {rounds} times while it was deployed")


def _pass(branch: Branch, head: str) -> Report:
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
    if branch.head() != head:
        return Report(head, "superseded", results)  # collect only what this head's stack leaves out
    try:
        removed = tuple(branch.finish(head, [result.name for result in results]))
    except Refused as error:
        return Report(head, "failed", results, error=f"everything is live, but {error.message}")
    return Report(head, "ok", results, removed)


def _summary(broken: Sequence[Result], total: int) -> str:
    names = ", ".join(result.name for result in broken)
    others = "the others are live, " if len(broken) < total else ""
    return f"{len(broken)} of {total} functions failed: {names}; {others}nothing was removed"
