"""GitHub's checks and statuses, with the rules that its API has.

Tokens have the permissions that they were minted for and no others; schemas and lengths are enforced; a check
run that is completed stays as it is. https://docs.github.com/rest/checks/runs
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from local.github import rules
from tests.repositories import Origin

from .fakes import Answer
from .github import INSTALLATION, NOT_FOUND, REPOSITORY, FakeGitHub, page

REFUSED: Answer = 403, b'{"message": "Resource not accessible by integration", "status": "403"}'


class FakeChecks(FakeGitHub):
    """`granted`: what the App may; `enforced`: whether a token is refused at once for what it may not.

    `commits` are those that GitHub knows. `before` is asked first, as for errors and limits.
    """

    def __init__(self, origin: Origin) -> None:
        super().__init__(origin)
        self.granted = {"contents: read", "metadata: read", "checks: write", "statuses: write"}
        self.enforced = True
        self.commits: set[str] = set()
        self.runs: list[dict[str, Any]] = []
        self.statuses: list[dict[str, Any]] = []
        self.before: list[Callable[[str, str], Answer | None]] = []
        self.tokens: dict[str, str] = {}

    def answer(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        for before in list(self.before):
            if (answer := before(method, path)) is not None:
                return answer
        with self.lock:
            if not path.startswith("/repos/"):
                return super().answer(method, path, headers, body)
            may = self.tokens.get(headers.get("Authorization", "").removeprefix("Bearer "))
            if not may:
                return 401, b'{"message": "Bad credentials"}'
            bare, query = urlsplit(path).path, urlsplit(path).query
            prefix = f"/repos/{self.full_name}"
            if not bare.startswith(prefix + "/"):
                return NOT_FOUND
            if may not in self.granted:
                return REFUSED
            rows = json.loads(body) if body else {}
            return self._called(method, bare.removeprefix(prefix), query, may, rows)

    def _called(self, method: str, path: str, query: str, may: str, rows: Mapping[str, Any]) -> Answer:
        if match := re.fullmatch(r"/commits/([0-9a-f]{40})/(check-runs|statuses)", path):
            found = self.runs if match[2] == "check-runs" else self.statuses
            listed = page([row for row in reversed(found) if row["head_sha"] == match[1]], query)
            whole = {"total_count": len(found), "check_runs": listed}
            return 200, json.dumps(whole if match[2] == "check-runs" else listed).encode()
        if match := re.fullmatch(r"/statuses/([0-9a-f]{40})", path):
            return REFUSED if may != "statuses: write" else self._status(match[1], rows)
        if may != "checks: write":
            return REFUSED
        if path == "/check-runs" and method == "POST":
            return self._make(rows)
        if (match := re.fullmatch(r"/check-runs/(\d+)", path)) and method == "PATCH":
            return self._change(int(match[1]), rows)
        return NOT_FOUND

    def _make(self, rows: Mapping[str, Any]) -> Answer:
        if problem := problems(rows, rules.MADE_RUN):
            return problem
        if rows["head_sha"] not in self.commits:
            return 422, b'{"message": "No commit found for SHA"}'
        run = {"id": len(self.runs) + 1, "status": "queued", "conclusion": None, "output": {}, **rows}
        self.runs.append(run)
        return 201, json.dumps(run).encode()

    def _change(self, number: int, rows: Mapping[str, Any]) -> Answer:
        if problem := problems(rows, rules.CHANGED_RUN):
            return problem
        if not 1 <= number <= len(self.runs):
            return NOT_FOUND
        run = self.runs[number - 1]
        if run["status"] == "completed":
            return 422, b'{"message": "Invalid request. The check run is completed"}'
        run.update(rows)
        return 200, json.dumps(run).encode()

    def _status(self, sha: str, rows: Mapping[str, Any]) -> Answer:
        if problem := problems(rows, rules.STATUS):
            return problem
        if sha not in self.commits:
            return 422, b'{"message": "No commit found for SHA"}'
        status = {"id": len(self.statuses) + 1, "head_sha": sha, "context": "default", **rows}
        self.statuses.append(status)
        return 201, json.dumps(status).encode()

    def _mint(self, number: int, wanted: Mapping[str, Any]) -> Answer:
        [(name, level)] = wanted["permissions"].items()
        may = f"{name}: {level}"
        if may in ("contents: read", "metadata: read"):
            return super()._mint(number, wanted)
        assert wanted["repository_ids"] == [REPOSITORY], "a token is for one repository"
        if self.enforced and may not in self.granted:
            return 422, b'{"message": "The permissions requested are not granted to this installation."}'
        status, content = super()._mint(number, {**wanted, "permissions": {"contents": "read"}})[:2]
        if status != 201:
            return status, content
        token = f"ghs_{len(self.tokens)}_{name}_{INSTALLATION}"
        self.tokens[token] = may
        return 201, json.dumps({**json.loads(content), "token": token}).encode()

    @property
    def latest(self) -> dict[str, str]:
        """What people see of each check."""
        return {run["name"]: run["conclusion"] or run["status"] for run in self.runs}


def problems(rows: Mapping[str, Any], schema: Mapping[str, Any]) -> Answer | None:
    said = rules.problem(rows, schema)
    return (422, json.dumps({"message": said}).encode()) if said else None
