"""What an examination finds, and how it is shown. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..timeline import shown

OK, WARN, FAIL, UNSEEN = "ok", "warn", "fail", "unseen"
STYLES = {OK: "green", WARN: "yellow", FAIL: "red", UNSEEN: "dim"}


@dataclass(frozen=True)
class Finding:
    """`about` names the check; `remedy` is what to do, for all but what is fine."""

    level: str
    about: str
    found: str
    remedy: str = ""

    @property
    def line(self) -> str:
        remedy = f" → {self.remedy}" if self.remedy else ""
        return shown(" ".join(f"{self.level:<6} {self.about:<12} {self.found}{remedy}".split("\n")))


def ok(about: str, found: str) -> Finding:
    return Finding(OK, about, found)


def warn(about: str, found: str, remedy: str) -> Finding:
    return Finding(WARN, about, found, remedy)


def fail(about: str, found: str, remedy: str) -> Finding:
    return Finding(FAIL, about, found, remedy)


def unseen(about: str, what: str, remedy: str) -> Finding:
    """What is neither fine nor a fault, because it can't be known from here."""
    return Finding(UNSEEN, about, f"can't be seen from here: {what}", remedy)


def are_fine(findings: Sequence[Finding]) -> bool:
    return all(finding.level in (OK, UNSEEN) for finding in findings)


def summary(findings: Sequence[Finding]) -> str:
    counts = {level: sum(finding.level == level for finding in findings) for level in STYLES}
    return ", ".join(_counted(counts))


def _counted(counts: dict[str, int]) -> Iterator[str]:
    words = {OK: "fine", WARN: "to look at", FAIL: "to mend", UNSEEN: "not seen from here"}
    yield from (f"{counts[level]} {word}" for level, word in words.items() if counts[level])
