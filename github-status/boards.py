"""Where GitHub shows what became of a commit: check runs, or commit statuses where the App may no more.

https://docs.github.com/rest/checks/runs and https://docs.github.com/rest/commits/statuses
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Protocol
from urllib.parse import quote

from . import runs
from .runs import Change, Run, Shown
from .sdk import github_app, messages
from .sdk.errors import Failed, Malformed
from .sdk.records import RERUN
from .sdk.settings import Settings

_PER_PAGE, _PAGES = 100, 10
_RUN_MARK = " · "


class Board(Protocol):
    has_text: ClassVar[bool]

    def shown(self, sha: str) -> Sequence[Shown]:
        """What is there for the commit."""

    def fitted(self, run: Run) -> Run:
        """The run as it can be shown here."""

    def make(self, sha: str, change: Change) -> None:
        """Show it."""


@dataclass(frozen=True)
class Api:
    """GitHub as an installation may use it for one repository; `path` is the repository's."""

    path: str
    token: str = field(repr=False)
    settings: Settings

    def call(self, method: str, path: str, needs: str, body: Mapping[str, Any] | None = None) -> bytes:
        path = self.path + path
        status, content = github_app.ask(method, path, self.token, self.settings, body)
        if status >= 300 and status not in (403, 404):
            raise Failed(f"GitHub answered {status} to {method} {path}: {_said(content)}")
        return github_app.checked(method, path, status, content, needs)


def repository_path(owner: str, repo: str) -> str:
    return f"/repos/{quote(owner, safe='')}/{quote(repo, safe='')}"


@dataclass(frozen=True)
class Checks:
    api: Api
    permission: ClassVar[str] = "checks: write"
    has_text: ClassVar[bool] = True

    def shown(self, sha: str) -> Sequence[Shown]:
        found: list[Shown] = []
        for page in range(1, _PAGES + 1):
            path = f"/commits/{sha}/check-runs?filter=all&per_page={_PER_PAGE}&page={page}"
            rows = messages.decode(self.api.call("GET", path, self.permission), _Runs).check_runs
            found += [row.shown() for row in rows]
            if len(rows) < _PER_PAGE:
                break
        return found

    def fitted(self, run: Run) -> Run:
        return run

    def make(self, sha: str, change: Change) -> None:
        body = _body(change.run)
        if change.id:
            self.api.call("PATCH", f"/check-runs/{change.id}", self.permission, body)
            return
        named = {"name": change.run.name, "external_id": change.run.external_id, "head_sha": sha}
        self.api.call("POST", "/check-runs", self.permission, {**named, **body})


@dataclass(frozen=True)
class Statuses:
    """One line for each. There is no neutral one: what is nobody's failure is a success that says so."""

    api: Api
    permission: ClassVar[str] = "statuses: write"
    has_text: ClassVar[bool] = False

    def shown(self, sha: str) -> Sequence[Shown]:
        """The latest of each attempt. One that another followed is over, whatever it said."""
        rows: list[_Status] = []
        for page in range(1, _PAGES + 1):
            path = f"/commits/{sha}/statuses?per_page={_PER_PAGE}&page={page}"
            found = messages.decode(self.api.call("GET", path, self.permission), tuple[_Status, ...])
            rows += found
            if len(found) < _PER_PAGE:
                break
        latest: dict[tuple[str, str], Shown] = {}
        for row in sorted(rows, key=lambda row: row.id, reverse=True):
            shown = row.shown()
            if any(name == row.context for name, _ in latest):
                shown = replace(shown, status=runs.COMPLETED)
            latest.setdefault((row.context, shown.external_id), shown)
        return list(latest.values())

    def fitted(self, run: Run) -> Run:
        conclusion = runs.SUCCESS if run.conclusion == runs.NEUTRAL else run.conclusion
        status = run.status if run.status == runs.COMPLETED else runs.QUEUED
        title, mark = run.title, _mark(run.external_id)
        if mark:
            title = runs.line(title, runs.TITLE_LIMIT - len(_RUN_MARK + mark)) + _RUN_MARK + mark
        external_id = runs.OURS + (mark or runs.PUSH)
        return replace(run, external_id=external_id, conclusion=conclusion, status=status, title=title)

    def make(self, sha: str, change: Change) -> None:
        run = change.run
        body = {
            "state": run.conclusion or "pending",
            "context": run.name,
            "description": run.title,
            **({"target_url": run.url} if run.url else {}),
        }
        self.api.call("POST", f"/statuses/{sha}", self.permission, body)


def _mark(external_id: str) -> str:
    """By what a status shows which re-run it is of: it has no id of ours."""
    again = external_id.removeprefix(runs.OURS)
    return again[: len(RERUN) + 8] if again.startswith(RERUN) else ""


def _body(run: Run) -> Mapping[str, Any]:
    output = {"title": run.title, "summary": run.summary[: runs.TEXT_LIMIT] or run.title}
    if run.log:
        output["text"] = runs.fenced("\n".join(run.log))
    ended = {"conclusion": run.conclusion, "completed_at": runs.stamp(run.completed)}
    return {
        "status": run.status,
        "started_at": runs.stamp(run.started),
        **({"details_url": run.url} if run.url else {}),
        **(ended if run.conclusion else {}),
        "output": output,
    }


def _said(content: bytes) -> str:
    try:
        return messages.decode(content, _Message).message[:300]
    except Malformed:
        return ""


@dataclass(frozen=True)
class _Message:
    message: str = ""


@dataclass(frozen=True)
class _Output:
    title: str | None = None


@dataclass(frozen=True)
class _Run:
    id: int
    name: str
    status: str
    external_id: str | None = None
    conclusion: str | None = None
    output: _Output = _Output()

    def shown(self) -> Shown:
        conclusion, title = self.conclusion or "", self.output.title or ""
        return Shown(self.id, self.name, self.external_id or "", self.status, conclusion, title)


@dataclass(frozen=True)
class _Runs:
    check_runs: tuple[_Run, ...]


@dataclass(frozen=True)
class _Status:
    id: int
    context: str
    state: str
    description: str | None = None

    def shown(self) -> Shown:
        title, ended = self.description or "", self.state != "pending"
        _, _, mark = title.rpartition(_RUN_MARK)
        external_id = runs.OURS + (mark if mark.startswith(RERUN) else runs.PUSH)
        status, conclusion = (runs.COMPLETED, self.state) if ended else (runs.QUEUED, "")
        return Shown(self.id, self.context, external_id, status, conclusion, title)
