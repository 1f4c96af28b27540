"""What GitHub would show, as pages: without JavaScript, and of what they show nothing is interpreted."""

from __future__ import annotations

import base64
import hashlib
from datetime import datetime
from pathlib import Path

from flask import Blueprint, Response, abort, make_response, render_template
from werkzeug.exceptions import HTTPException

from ..gitserver import repository as git
from .rules import COMPLETED
from .store import Commit, Run, Store, latest

COMMITS = 50
_STYLE = (Path(__file__).parent / "style.css").read_text()
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
# What is worst of several is what is said of them together.
_WORST = ("failure", "in_progress", "queued", "success", "neutral")


class Pages:
    def __init__(self, store: Store, root: Path) -> None:
        self._store, self._root = store, root

    def routes(self) -> Blueprint:
        routes = Blueprint("pages", __name__, template_folder=".")
        routes.get("/")(self.overview)
        routes.get("/<owner>/<repo>")(self.repository)
        routes.get("/<owner>/<repo>/commit/<sha>")(self.commit)
        return routes

    def overview(self) -> Response:
        return self._commits("Commits with checks", "")

    def repository(self, owner: str, repo: str) -> Response:
        found = git.find(owner, repo, self._root) or abort(404, "There is no such repository.")
        return self._commits(found.full_name, found.full_name)

    def commit(self, owner: str, repo: str, sha: str) -> Response:
        """By its whole name, or by a beginning of 7 signs or more that no other has."""
        repository = git.find(owner, repo, self._root) or abort(404, "There is no such repository.")
        whole = repository.commit(sha) or abort(404, "There is no such commit, or more than one.")
        runs = self._latest(Commit(repository.full_name, whole))
        subject = repository.git("log", "-1", "--format=%s", whole, "--")
        return page(
            "commit.html", title=subject or whole[:10], repository=repository.full_name, sha=whole, runs=runs
        )

    def _latest(self, commit: Commit) -> list[Run]:
        return sorted(latest(self._store.runs(commit)), key=lambda run: str(run["name"]))

    def _commits(self, title: str, repository: str) -> Response:
        found = self._store.commits(repository, COMMITS)
        rows = [(commit, self._latest(commit)) for commit in found]
        return page("commits.html", title=title, commits=rows, runs=[run for _, runs in rows for run in runs])


def page(template: str, status: int = 200, **values: object) -> Response:
    html = render_template(template, style=_STYLE, **values)
    answer = make_response(html.encode(errors="replace"), status)  # JSON may hold halves of characters
    answer.headers.update(HEADERS)
    return answer


def refusal(error: HTTPException) -> Response:
    return page("page.html", error.code or 500, title=error.name, message=error.description, runs=[])


def state(run: Run) -> str:
    return str(run.get("conclusion") or run["status"])


def worst(runs: list[Run]) -> str:
    """Of those that are neither, as cancelled ones, the first."""
    states = [state(run) for run in runs]
    return next((each for each in _WORST if each in states), states[0])


def lasted(run: Run) -> str:
    if run["status"] != COMPLETED:
        return ""
    try:
        began, ended = (datetime.fromisoformat(run[name][:-1]) for name in ("started_at", "completed_at"))
    except ValueError:  # a 31st of February
        return ""
    return f"{max(0, (ended - began).total_seconds()):.0f} s"
