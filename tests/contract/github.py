"""GitHub with one private repository: its API for Apps, and git over HTTP with the App's token alone.

Who may ask what is as on GitHub: `/app…` and `…/installation` take the App's JWT alone,
`/repositories/ID` and `/installation/repositories` a token of an installation.
https://docs.github.com/en/rest/apps/apps
"""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.repositories import Origin

from .fakes import Answer, Server

APP, INSTALLATION, REPOSITORY = "12", 42, 7
TOKEN = "ghs_hunter2hunter2"
# One that may read names only: of all the installation's repositories, whose number follows.
NAMES_TOKEN = "ghs_hunter3hunter3"
NOT_FOUND: Answer = 404, b'{"message": "Not Found"}'


@dataclass
class Installed:
    """An installation of the App, and the repositories that it has."""

    repositories: set[int] = field(default_factory=lambda: {REPOSITORY})
    suspended_at: str | None = None


class FakeGitHub(Server):
    """`full_name` is where the repository is now; `origin` is what it holds.

    `more` repositories are listed beside it. What is asked for goes through `overrides`; `failing` has the
    statuses of paths that do not work.
    """

    def __init__(self, origin: Origin) -> None:
        super().__init__()
        self.origin = origin
        self.full_name = "alice/hello"
        self.owner_id = 3
        self.installations = {INSTALLATION: Installed()}
        self.more: list[Mapping[str, object]] = []
        self.overrides: list[Callable[[str, str], Answer | None]] = []
        self.failing: dict[str, int] = {}
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)

    def write_key(self, folder: Path) -> None:
        pem = self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        (folder / "private-key").write_bytes(pem)

    @property
    def clone_url(self) -> str:
        return f"{self.url}/{self.full_name}.git"

    def answer(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        for override in list(self.overrides):
            if (answer := override(method, path)) is not None:
                return answer
        scheme, _, given = headers.get("Authorization", "").partition(" ")
        bare, _, query = path.partition("?")
        if bare in self.failing:
            return self.failing[bare], b"{}"
        if path.startswith("/app") or path.endswith("/installation"):
            return self._as_app(bare, query, given, body) if self._is_app(given) else (401, b"{}")
        if bare == "/installation/repositories":
            return self._listed(given, query)
        if path == f"/repositories/{REPOSITORY}":
            if given != TOKEN and not given.startswith(NAMES_TOKEN):
                return 401, b"{}"
            is_there = bool(self._covering(REPOSITORY))
            return (200, json.dumps(self._repository()).encode()) if is_there else NOT_FOUND
        if (scheme, given) != ("Basic", base64.b64encode(f"x-access-token:{TOKEN}".encode()).decode()):
            return 401, b"", {"WWW-Authenticate": 'Basic realm="GitHub"'}
        if path.startswith(f"/{self.full_name}.git/"):
            return self._git(method, path.removeprefix(f"/{self.full_name}.git"), headers, body)
        return 404, b""

    def _is_app(self, given: str) -> bool:
        try:
            jwt.decode(given, self._key.public_key(), algorithms=["RS256"], issuer=APP)
        except jwt.PyJWTError:
            return False
        return True

    def _as_app(self, path: str, query: str, given: str, body: bytes) -> Answer:
        if path == "/app":
            return 200, json.dumps({"id": int(APP), "slug": "cloud"}).encode()
        if path == "/app/installations":
            return 200, json.dumps(
                page([self._installation(each) for each in self.installations], query)
            ).encode()
        if match := re.fullmatch(r"/app/installations/(\d+)(/access_tokens)?", path):
            number = int(match[1])
            if number not in self.installations:
                return NOT_FOUND
            if match[2]:
                return self._mint(number, json.loads(body))
            return 200, json.dumps(self._installation(number)).encode()
        if match := re.fullmatch(r"/repositories/(\d+)/installation", path):
            number = self._covering(int(match[1]))
            return (200, json.dumps(self._installation(number)).encode()) if number else NOT_FOUND
        return NOT_FOUND

    def _covering(self, repository: int) -> int:
        found = [number for number, each in self.installations.items() if repository in each.repositories]
        return found[0] if found else 0

    def _installation(self, number: int) -> Mapping[str, object]:
        return {
            "id": number,
            "account": {"id": self.owner_id, "login": self.full_name.partition("/")[0]},
            "suspended_at": self.installations[number].suspended_at,
        }

    def _mint(self, number: int, wanted: Mapping[str, Any]) -> Answer:
        installed = self.installations[number]
        if installed.suspended_at:
            return 403, b'{"message": "This installation has been suspended"}'
        if not set(wanted.get("repository_ids", ())) <= installed.repositories:
            return 422, b'{"message": "There is at least one repository that is not accessible"}'
        reads_names = wanted["permissions"] == {"metadata": "read"}
        assert reads_names or (wanted["permissions"] == {"contents": "read"} and wanted["repository_ids"])
        expires = datetime.now(timezone.utc) + timedelta(hours=1)
        token = f"{NAMES_TOKEN}{number}" if reads_names else TOKEN
        return 201, json.dumps({"token": token, "expires_at": expires.isoformat()}).encode()

    def _listed(self, given: str, query: str) -> Answer:
        """A page of what the installation may read."""
        number = given.removeprefix(NAMES_TOKEN)
        if number == given or int(number) not in self.installations:
            return 401, b"{}"
        has_it = REPOSITORY in self.installations[int(number)].repositories
        rows = [*([self._repository()] if has_it else []), *self.more]
        return 200, json.dumps({"total_count": len(rows), "repositories": page(rows, query)}).encode()

    def _repository(self) -> Mapping[str, object]:
        owner, _, name = self.full_name.partition("/")
        return {
            "id": REPOSITORY,
            "name": name,
            "full_name": self.full_name,
            "clone_url": self.clone_url,
            "html_url": f"https://github.com/{self.full_name}",
            "private": True,
            "owner": {"login": owner, "id": self.owner_id},
        }

    def _git(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """By git's own server: https://git-scm.com/docs/git-http-backend"""
        parts = urlsplit(path)
        environment = {
            "PATH": os.environ["PATH"],
            "GIT_PROJECT_ROOT": str(self.origin.bare),
            "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": parts.path,
            "QUERY_STRING": parts.query,
            "REQUEST_METHOD": method,
            "CONTENT_TYPE": headers.get("Content-Type", ""),
            "HTTP_CONTENT_ENCODING": headers.get("Content-Encoding", ""),
            "GIT_PROTOCOL": headers.get("Git-Protocol", ""),
            "REMOTE_USER": "app",
        }
        done = subprocess.run(("git", "http-backend"), input=body, capture_output=True, env=environment)
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        told = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
        return int(told.pop("Status", "200").split()[0]), content, told


def page(rows: Sequence[Mapping[str, object]], query: str) -> Sequence[Mapping[str, object]]:
    """https://docs.github.com/rest/using-the-rest-api/using-pagination-in-the-rest-api"""
    asked = parse_qs(query)
    size, number = int(asked["per_page"][0]), int(asked["page"][0])
    assert size <= 100
    return rows[size * (number - 1) : size * number]
