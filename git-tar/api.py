"""Calls of GitHub's REST API, as its App.

https://docs.github.com/apps/creating-github-apps/authenticating-with-a-github-app
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jwt
import requests

from .sdk.errors import Failed, Misconfigured, Refused, Unavailable
from .sdk.settings import Settings

_SECONDS = 15
# A JWT lives 10 minutes at most; clocks differ by less than one.
_JWT_SECONDS, _CLOCK_SECONDS = 540, 60


def app_token(settings: Settings) -> str:
    now = int(time.time())
    claims = {"iat": now - _CLOCK_SECONDS, "exp": now + _JWT_SECONDS, "iss": settings.github_app_id}
    try:
        key = (Path(settings.secret_mount_path) / "private-key").read_bytes()
        return jwt.encode(claims, key, algorithm="RS256")
    except OSError:
        raise Misconfigured("secret private-key is missing: it is the GitHub App's private key") from None
    except (ValueError, TypeError, jwt.PyJWTError):
        raise Misconfigured("secret private-key is no RSA key in PEM") from None


def call(
    method: str, path: str, token: str, settings: Settings, body: Mapping[str, Any] | None = None
) -> bytes:
    return checked(method, path, *ask(method, path, token, settings, body))


def checked(method: str, path: str, status: int, content: bytes) -> bytes:
    if 200 <= status < 300:
        return content
    if status == 404:
        raise Failed(f"GitHub has no {path} for this App: it was uninstalled, or the repository is gone")
    raise Refused(f"GitHub answered {status} to {method} {path}: the App needs contents: read")


def ask(
    method: str, path: str, token: str, settings: Settings, body: Mapping[str, Any] | None = None
) -> tuple[int, bytes]:
    """Status and body of an answer that is about what was asked; raises for every other one."""
    headers = {
        "Accept": "application/vnd.github+json",
        "Authorization": f"Bearer {token}",
        "X-GitHub-Api-Version": "2022-11-28",
    }
    url = settings.github_api_url.rstrip("/") + path
    try:
        answer = requests.request(
            method, url, headers=headers, json=body, timeout=_SECONDS, allow_redirects=False
        )
    except requests.RequestException as error:
        raise Unavailable(f"GitHub can't be reached: {type(error).__name__}") from None
    limited = answer.headers.get("X-RateLimit-Remaining") == "0" or "Retry-After" in answer.headers
    if answer.status_code >= 500 or answer.status_code == 429 or (limited and not answer.ok):
        raise Unavailable(f"GitHub answered {answer.status_code} to {method} {path}")
    if answer.status_code == 401:
        raise Misconfigured("GitHub does not know the App's key: check github_app_id and private-key")
    return answer.status_code, answer.content
