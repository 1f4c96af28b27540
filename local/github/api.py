"""The part of GitHub's REST API that github-status uses, with GitHub's own rules.

https://docs.github.com/rest/apps/apps and https://docs.github.com/rest/checks/runs
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from flask import Blueprint, Response, abort, jsonify, request
from werkzeug.exceptions import HTTPException

from ..gitserver import repository as git
from ..gitserver.repository import BareRepository
from . import rules
from .store import Commit, IsCompletedError, Run, Store, latest
from .tokens import TOKEN_SECONDS, App, Grant, Tokens

# What whoever installs the App grants it.
GRANTED = {"checks": "write", "metadata": "read"}
_PER_PAGE, _MOST_PER_PAGE = 30, 100
_REPOSITORY, _NUMBER = "/repos/<owner>/<repo>", "<int(max=9223372036854775807):number>"


class Api:
    """`root` has the git server's repositories: what it has is what GitHub would know."""

    def __init__(self, app: App, tokens: Tokens, store: Store, root: Path) -> None:
        self._app, self._tokens, self._store, self._root = app, tokens, store, root

    def routes(self) -> Blueprint:
        routes = Blueprint("api", __name__)
        routes.register_error_handler(HTTPException, refusal)
        get, post = routes.get, routes.post
        get(f"/repositories/{_NUMBER}/installation")(self.installation)
        post(f"/app/installations/{_NUMBER}/access_tokens")(self.token)
        get(f"{_REPOSITORY}/commits/<sha>/check-runs")(self.listed)
        post(f"{_REPOSITORY}/check-runs")(self.make)
        routes.patch(f"{_REPOSITORY}/check-runs/{_NUMBER}")(self.change)
        return routes

    def installation(self, number: int) -> Response:
        self._as_app()
        found = next((each for each in git.repositories(self._root) if each.id == number), None)
        if not found:
            abort(404, "Not Found")
        account = {"id": found.owner_id, "login": found.owner, "type": "User"}
        return jsonify(
            {"id": found.owner_id, "account": account, "permissions": GRANTED, "suspended_at": None}
        )

    def token(self, number: int) -> tuple[Response, int]:
        self._as_app()
        theirs = [each for each in git.repositories(self._root) if each.owner_id == number]
        if not theirs:
            abort(404, "Not Found")
        wanted = _body(rules.TOKEN)
        [repository], permissions = wanted["repository_ids"], wanted["permissions"]
        found = next((each for each in theirs if each.id == repository), None)
        if not found:
            abort(422, "There is at least one repository that does not exist or is not accessible.")
        if not all(Grant("", GRANTED).may(*each) for each in permissions.items()):
            abort(422, "The permissions requested are not granted to this installation.")
        token = self._tokens.mint(Grant(found.full_name, permissions))
        expires = _stamp(datetime.now(timezone.utc) + timedelta(seconds=TOKEN_SECONDS))
        return jsonify({"token": token, "expires_at": expires, "permissions": permissions}), 201

    def listed(self, owner: str, repo: str, sha: str) -> Response:
        commit = self._commit(self._repository(owner, repo, "read"), sha)
        runs = self._store.runs(commit)
        if request.args.get("filter", "latest") == "latest":
            runs = latest(runs)
        size = min(_number("per_page", _PER_PAGE), _MOST_PER_PAGE)
        first = size * (_number("page", 1) - 1)
        shown = [_shown(run) for run in runs[first : first + size]]
        return jsonify({"total_count": len(runs), "check_runs": shown})

    def make(self, owner: str, repo: str) -> tuple[Response, int]:
        repository = self._repository(owner, repo, "write")
        rows = _body(rules.MADE_RUN)
        commit = self._commit(repository, rows["head_sha"])
        began = {"status": "queued", "started_at": _stamp(datetime.now(timezone.utc))}
        return jsonify(_shown(self._store.make(commit, _completed({**began, **rows})))), 201

    def change(self, owner: str, repo: str, number: int) -> Response:
        repository = self._repository(owner, repo, "write")
        rows = _body(rules.CHANGED_RUN)
        try:
            run = self._store.change(repository.full_name, number, _completed(rows))
        except IsCompletedError:
            abort(422, "Invalid request. The check run is completed")
        return jsonify(_shown(run)) if run else abort(404, "Not Found")

    def _as_app(self) -> None:
        if problem := self._app.refuses(_bearer()):
            abort(401, problem)

    def _repository(self, owner: str, name: str, level: str) -> BareRepository:
        """The one that is asked for, by a token that may do so."""
        grant = self._tokens.grant(_bearer())
        if not grant:
            abort(401, "Bad credentials")
        found = git.find(owner, name, self._root)
        if not found or found.full_name != grant.repository:
            abort(404, "Not Found")
        if not grant.may("checks", level):
            abort(403, "Resource not accessible by integration")
        return found

    def _commit(self, repository: BareRepository, sha: str) -> Commit:
        if not sha or repository.commit(sha) != sha:
            abort(422, f"No commit found for SHA: {sha}")
        return Commit(repository.full_name, sha)


def refusal(error: HTTPException) -> tuple[Response, int]:
    status = error.code or 500
    return jsonify({"message": error.description, "status": str(status)}), status


def _bearer() -> str:
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    return given if scheme.lower() == "bearer" else ""


def _body(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    try:
        rows = json.loads(request.get_data())
    except (ValueError, RecursionError):
        abort(400, "Problems parsing JSON")
    if problem := rules.problem(rows, schema):
        abort(422, problem)
    assert isinstance(rows, dict)
    return rows


def _number(name: str, default: int) -> int:
    return max(1, request.args.get(name, default, type=int))


def _completed(rows: Mapping[str, Any]) -> Mapping[str, Any]:
    if rows.get("status") != rules.COMPLETED:
        return rows
    return {"completed_at": _stamp(datetime.now(timezone.utc)), **rows}


def _shown(run: Run) -> Mapping[str, Any]:
    empty = dict.fromkeys(("external_id", "details_url", "conclusion", "completed_at"))
    output = {"title": None, "summary": None, "text": None, **run.get("output", {})}
    return {**empty, **run, "output": output}


def _stamp(time: datetime) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")
