"""The check runs, in SQLite: the newest of them."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from .rules import COMPLETED

Run: TypeAlias = dict[str, Any]

LIMIT = 2000
_TABLE = """
CREATE TABLE IF NOT EXISTS runs (
  id INTEGER PRIMARY KEY AUTOINCREMENT, repository TEXT NOT NULL, sha TEXT NOT NULL, run TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS runs_of_commit ON runs (repository, sha);
"""


class IsCompletedError(Exception):
    """A completed run stays as it is."""


@dataclass(frozen=True)
class Commit:
    """One that has runs, in `repository` (OWNER/NAME)."""

    repository: str
    sha: str


class Store:
    """One connection for all threads, one at a time; `limit` runs are kept."""

    def __init__(self, file: Path, limit: int = LIMIT) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._database = sqlite3.connect(file, check_same_thread=False)
        self._database.executescript(_TABLE)

    def close(self) -> None:
        with self._lock:
            self._database.close()

    def make(self, commit: Commit, rows: Mapping[str, Any]) -> Run:
        with self._lock, self._database, closing(self._database.cursor()) as cursor:
            values = (commit.repository, commit.sha, json.dumps(rows))
            cursor.execute("INSERT INTO runs (repository, sha, run) VALUES (?, ?, ?)", values)
            number = cursor.lastrowid or 0
            # No number is given twice, so that this counts them.
            cursor.execute("DELETE FROM runs WHERE id <= ?", (number - self._limit,))
        return {**rows, "id": number}

    def change(self, repository: str, number: int, rows: Mapping[str, Any]) -> Run | None:
        """The run as it is now, None if there is none; `IsCompletedError`."""
        with self._lock, self._database, closing(self._database.cursor()) as cursor:
            cursor.execute("SELECT run FROM runs WHERE id = ? AND repository = ?", (number, repository))
            found = cursor.fetchone()
            if not found:
                return None
            run = json.loads(found[0])
            if run["status"] == COMPLETED:
                raise IsCompletedError
            run.update(rows)
            cursor.execute("UPDATE runs SET run = ? WHERE id = ?", (json.dumps(run), number))
        return {**run, "id": number}

    def runs(self, commit: Commit) -> Sequence[Run]:
        """All of them, the newest first."""
        query = "SELECT id, run FROM runs WHERE repository = ? AND sha = ? ORDER BY id DESC"
        rows = self._rows(query, (commit.repository, commit.sha))
        return [{**json.loads(run), "id": number} for number, run in rows]

    def commits(self, repository: str, limit: int) -> Sequence[Commit]:
        """Those with runs, the one with the newest first; of all repositories without one."""
        query = (
            "SELECT repository, sha FROM runs WHERE ? IN ('', repository) "
            "GROUP BY repository, sha ORDER BY max(id) DESC LIMIT ?"
        )
        return [Commit(*row) for row in self._rows(query, (repository, limit))]

    def _rows(self, query: str, values: tuple[object, ...]) -> list[tuple[Any, ...]]:
        with self._lock, closing(self._database.cursor()) as cursor:
            return cursor.execute(query, values).fetchall()


def latest(runs: Sequence[Run]) -> list[Run]:
    """Of each name the newest run; the newest first, as `runs` are."""
    found: dict[str, Run] = {}
    for run in runs:
        found.setdefault(run["name"], run)
    return list(found.values())
