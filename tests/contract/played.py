"""The local cloud's play of GitHub, with alice/hello pushed: the real application, in this process."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jwt
from werkzeug.serving import make_server

from local import checks
from local.github import APP_ID
from local.github.app import make
from local.github.store import Commit, Store
from local.gitserver.repository import BareRepository, ensure
from tests.repositories import Origin

HERE = "http://127.0.0.1:8083"


@cache
def _key() -> bytes:
    return checks.made_key()


@dataclass(frozen=True)
class Answer:
    status_code: int
    text: str
    headers: Mapping[str, str]
    json: Any


class Played:
    """`root` is the git server's folder; `origin` an author's repository, which is pushed there."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self.root = folder / "srv"
        self.key = _key()
        self.store = Store(folder / "checks.db")
        self.app = make(APP_ID, self.key, self.store, self.root)
        self._client = self.app.test_client()

    @property
    def repository(self) -> BareRepository:
        return ensure("/alice/hello.git/info/refs", self.root)

    def knows(self, bare: Path, number: int) -> None:
        """Take a repository that is there for alice/hello, with that id."""
        (self.root / "alice").mkdir(parents=True)
        (self.root / "alice" / "hello.git").symlink_to(bare)
        self.repository.git("config", "cloud.id", str(number))

    def commit(self, origin: Origin, name: str = "hello") -> str:
        sha = origin.commit({})
        origin.git("push", "--quiet", str(ensure(f"/alice/{name}.git/info/refs", self.root).folder), "HEAD")
        return sha

    def signed(self, key: bytes = b"", **change: Any) -> str:
        """What the App signs in with."""
        now = int(time.time())
        claims = {"iat": now - 60, "exp": now + 540, "iss": APP_ID, **change}
        return jwt.encode(claims, key or self.key, algorithm="RS256")

    def token(self, may: str = "checks: write") -> str:
        """For alice/hello."""
        wanted = {"repository_ids": [self.repository.id], "permissions": dict([may.split(": ")])}
        path = f"/app/installations/{self.repository.owner_id}/access_tokens"
        answer = self.call("POST", path, self.signed(), wanted)
        assert answer.status_code == 201, answer.text
        return str(answer.json["token"])

    def call(self, method: str, path: str, token: str = "", body: object = None) -> Answer:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        found = self._client.open(path, method=method, headers=headers, base_url=HERE, json=body)
        return Answer(found.status_code, found.text, dict(found.headers), found.get_json(silent=True))

    def page(self, path: str, status: int = 200) -> str:
        answer = self.call("GET", path)
        assert answer.status_code == status, answer.text
        return answer.text

    def shown(self, repository: str, sha: str) -> dict[str, str]:
        """What people see of each check of a commit."""
        runs = reversed(self.store.runs(Commit(repository, sha)))
        return {run["name"]: run.get("conclusion") or run["status"] for run in runs}

    @contextmanager
    def serving(self) -> Iterator[str]:
        """Serve at the URL that is returned."""
        server = make_server("127.0.0.1", 0, self.app, threaded=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.port}"
        finally:
            server.shutdown()
            thread.join()
            server.server_close()
