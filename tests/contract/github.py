"""GitHub with one private repository: its API for Apps, and git over HTTP with the App's token alone.

Who may ask what is as on GitHub: `/app…` and `…/installation` take the App's JWT alone, `/repositories/ID` a
token of an installation that has it.
https://docs.github.com/en/rest/apps/apps
"""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.repositories import Origin

from .fakes import Answer, Server

APP, INSTALLATION, REPOSITORY = "12", 42, 7
TOKEN = "ghs_hunter2hunter2"


@dataclass
class Installed:
    """An installation of the App, and the repositories that it has."""

    repositories: set[int] = field(default_factory=lambda: {REPOSITORY})
    suspended_at: str | None = None


class FakeGitHub(Server):
    """`full_name` is where the repository is now; `origin` is what it holds."""

    def __init__(self, origin: Origin) -> None:
        super().__init__()
        self.origin = origin
        self.full_name = "alice/hello"
        self.owner_id = 3
        self.installations = {INSTALLATION: Installed()}
        self.overrides: list[Callable[[str, str], Answer | None]] = []
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
        if path.startswith("/app") or path.endswith("/installation"):
            return self._as_app(path, given, body) if self._is_app(given) else (401, b"{}")
        if path == f"/repositories/{REPOSITORY}":
            if given != TOKEN:
                return 401, b"{}"
            return (
                (200, json.dumps(self._repository()).encode()) if self._covering(REPOSITORY) else (404, b"{}")
            )
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

    def _as_app(self, path: str, given: str, body: bytes) -> Answer:
        if path == "/app":
            return 200, json.dumps({"id": int(APP), "slug": "cloud"}).encode()
        if match := re.fullmatch(r"/app/installations/(\d+)(/access_tokens)?", path):
            number = int(match[1])
            if number not in self.installations:
                return 404, b'{"message": "Not Found"}'
            return self._mint(number, json.loads(body)) if match[2] else (200, self._installation(number))
        if match := re.fullmatch(r"/repositories/(\d+)/installation", path):
            number = self._covering(int(match[1]))
            return (200, self._installation(number)) if number else (404, b'{"message": "Not Found"}')
        return 404, b'{"message": "Not Found"}'

    def _covering(self, repository: int) -> int:
        found = [number for number, each in self.installations.items() if repository in each.repositories]
        return found[0] if found else 0

    def _installation(self, number: int) -> bytes:
        return json.dumps({"id": number, "suspended_at": self.installations[number].suspended_at}).encode()

    def _mint(self, number: int, wanted: Mapping[str, Any]) -> Answer:
        installed = self.installations[number]
        if installed.suspended_at:
            return 403, b'{"message": "This installation has been suspended"}'
        if not set(wanted["repository_ids"]) <= installed.repositories:
            return 422, b'{"message": "There is at least one repository that is not accessible"}'
        assert wanted["permissions"] in ({"contents": "read"}, {"metadata": "read"})
        expires = datetime.now(timezone.utc) + timedelta(hours=1)
        return 201, json.dumps({"token": TOKEN, "expires_at": expires.isoformat()}).encode()

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
