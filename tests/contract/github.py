"""GitHub with one private repository: its API for Apps, and git over HTTP with the App's token alone."""

from __future__ import annotations

import base64
import json
import os
import subprocess
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from pathlib import Path
from urllib.parse import urlsplit

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.repositories import Origin

from .fakes import Answer, Server

APP, INSTALLATION, REPOSITORY = "12", 42, 7
TOKEN = "ghs_hunter2hunter2"


class FakeGitHub(Server):
    """`full_name` is where the repository is now; `origin` is what it holds."""

    def __init__(self, origin: Origin) -> None:
        super().__init__()
        self.origin = origin
        self.full_name = "alice/hello"
        self.owner_id = 3
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
        scheme, _, given = headers.get("Authorization", "").partition(" ")
        if path == f"/app/installations/{INSTALLATION}/access_tokens":
            return self._mint(given, json.loads(body))
        if path == f"/repositories/{REPOSITORY}":
            return (200, json.dumps(self._repository()).encode()) if given == TOKEN else (401, b"{}")
        if (scheme, given) != ("Basic", base64.b64encode(f"x-access-token:{TOKEN}".encode()).decode()):
            return 401, b"", {"WWW-Authenticate": 'Basic realm="GitHub"'}
        if path.startswith(f"/{self.full_name}.git/"):
            return self._git(method, path.removeprefix(f"/{self.full_name}.git"), headers, body)
        return 404, b""

    def _mint(self, given: str, wanted: Mapping[str, object]) -> Answer:
        jwt.decode(given, self._key.public_key(), algorithms=["RS256"], issuer=APP)
        assert wanted == {"repository_ids": [REPOSITORY], "permissions": {"contents": "read"}}
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
