"""Bugs that the suite must find: each is a small change of the platform's sources."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Change:
    """In `path`, `old` (which is there exactly once) becomes `new`."""

    path: str
    old: str
    new: str


PLANTS: Mapping[str, tuple[Change, ...]] = {
    # git-tar believes that the head is still where it was when the pass began: while it ships (the watch over
    # builds would nearly always find it out), before it collects, and after.
    "no-check": (
        Change(
            "git-tar/converge.py",
            'outcome == "superseded" or branch.head() != head',
            'outcome == "superseded"',
        ),
        Change("git-tar/converge.py", "has_written and branch.head() != head", "not head"),
        Change("git-tar/overtaken.py", "self.has_moved = self.head() != self.sha", "self.has_moved = False"),
    ),
    # The functions to keep are those of the first push that this process has seen.
    "stale-list": (
        Change(
            "git-tar/pipeline.py",
            "    def finish(self, sha: str, keep: Sequence[str]) -> Tidied:\n",
            "    def finish(self, sha: str, keep: Sequence[str]) -> Tidied:\n"
            "        keep = KEPT.setdefault(self.push.repository.id, keep)\n",
        ),
        Change("git-tar/pipeline.py", "FINISH_SECONDS = 60\n", "FINISH_SECONDS = 60\nKEPT = {}\n"),
    ),
    # A version that failed is replaced by the one before, whatever was deployed in its place meanwhile.
    "rollback": (
        Change(
            "buildshiprun/ship.py",
            "if previous is None or deployment.nonce_of(status) != nonce:",
            "if previous is None:",
        ),
    ),
    # git-tar says that it is done, and goes on.
    "early": (
        Change(
            "git-tar/handler.py",
            '    return deploy(messages.unseal(body, "git-tar", Push), settings, keys)\n',
            '    work = (messages.unseal(body, "git-tar", Push), settings, keys)\n'
            "    threading.Thread(target=deploy, args=work).start()\n"
            '    return answer(200, {"delivery": ""})\n',
        ),
        Change("git-tar/handler.py", "import tempfile\n", "import tempfile\nimport threading\n"),
    ),
}


def planted(changes: tuple[Change, ...], root: Path) -> Mapping[str, str]:
    """The changed files of the checkout `root`. Raises `ValueError` where the sources have changed."""
    texts: dict[str, str] = {}
    for change in changes:
        text = texts.get(change.path) or (root / change.path).read_text()
        if text.count(change.old) != 1:
            raise ValueError(f"{change.path}: {change.old!r} is there {text.count(change.old)} times")
        texts[change.path] = text.replace(change.old, change.new)
    return texts
