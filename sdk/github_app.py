"""GitHub's API as a GitHub App may use it: tokens, and one call with what its answers mean.

https://docs.github.com/apps/creating-github-apps/authenticating-with-a-github-app
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import jwt
import requests
from cachetools import LRUCache

from . import messages
from .errors import Failed, Misconfigured, Refused, Unavailable
from .settings import Settings

_SECONDS = 15
# A JWT lives 10 minutes at most; clocks differ by less than one.
_JWT_SECONDS, _CLOCK_SECONDS = 540, 60
# A token that ends sooner than this is not begun with: a push takes at most 15 minutes.
_SPARE_SECONDS = 20 * 60
# How long GitHub is left alone that says no more than that it was too much; and at most.
_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 60, 3600


@dataclass(frozen=True)
class Token:
    """An installation token; `expires` in seconds since 1970."""

    text: str = field(repr=False)
    expires: float


@dataclass
class Tokens:
    """Tokens that were minted, until shortly before they expire."""

    _minted: LRUCache[tuple[str, int, int | None, str], Token] = field(default_factory=lambda: LRUCache(500))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def token(
        self, installation: int, repository: int | None, settings: Settings, may: str = "contents: read"
    ) -> str:
        """A token that `may` do this in the repository; without one, read the names of all. Nothing else.

        `Refused` if the App was not given that permission.
        """
        key = (settings.github_app_id, installation, repository, may)
        with self._lock:
            token = self._minted.get(key)
        if not token or token.expires - time.time() < _SPARE_SECONDS:
            token = _mint(installation, repository, settings, may)
            with self._lock:
                self._minted[key] = token
        return token.text

    def forget(self, installation: int, repository: int) -> None:
        """The installation has left: GitHub takes its tokens no more, not even if it comes back."""
        with self._lock:
            for key in [key for key in self._minted if key[2] == repository or key[1] == installation]:
                del self._minted[key]


def app_token(settings: Settings) -> str:
    """What the App itself signs in with, as opposed to its installations."""
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
    """GitHub's answer to a call of its API; whatever is none is raised."""
    return checked(method, path, *ask(method, path, token, settings, body))


def checked(method: str, path: str, status: int, content: bytes, needs: str = "contents: read") -> bytes:
    """The content of an answer that says yes; the permission `needs` is named in one that says no."""
    if 200 <= status < 300:
        return content
    if status == 404:
        raise Failed(f"GitHub has no {path} for this App: it was uninstalled, or the repository is gone")
    raise Refused(f"GitHub answered {status} to {method} {path}: the App needs {needs}")


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
    pause = _pause(answer)
    if answer.status_code >= 500 or answer.status_code == 429 or (pause and not answer.ok):
        said = f"GitHub answered {answer.status_code} to {method} {path}"
        raise Unavailable(said, retry_after=pause) if pause else Unavailable(said)
    if answer.status_code == 401:
        raise Misconfigured("GitHub does not know the App's key: check github_app_id and private-key")
    return answer.status_code, answer.content


def is_app(scm: str, settings: Settings) -> bool:
    """Whether GitHub can be asked as its App."""
    return scm == "github" and bool(settings.github_app_id)


def _pause(answer: requests.Response) -> int:
    """How many seconds GitHub wants to be left alone for, 0 if it says no such thing.

    https://docs.github.com/rest/using-the-rest-api/best-practices-for-using-the-rest-api
    """
    after, reset = answer.headers.get("Retry-After", ""), answer.headers.get("X-RateLimit-Reset", "")
    if after:
        seconds = int(after) if after.isdecimal() else _PAUSE_SECONDS
    elif answer.headers.get("X-RateLimit-Remaining") == "0":
        seconds = int(reset) - int(time.time()) if reset.isdecimal() else _PAUSE_SECONDS
    elif answer.status_code in (403, 429) and b"rate limit" in answer.content.lower():
        seconds = _PAUSE_SECONDS
    else:
        return 0
    return min(max(1, seconds), _LONGEST_PAUSE_SECONDS)


def _mint(installation: int, repository: int | None, settings: Settings, may: str) -> Token:
    wanted: Mapping[str, Any] = {"permissions": {"metadata": "read"}}
    if repository is not None:
        wanted = {"repository_ids": [repository], "permissions": dict([may.split(": ")])}
    path = f"/app/installations/{installation}/access_tokens"
    answer = ask("POST", path, app_token(settings), settings, wanted)
    found = messages.decode(checked("POST", path, *answer, needs=may), _Minted)
    return Token(found.token, datetime.fromisoformat(found.expires_at.replace("Z", "+00:00")).timestamp())


@dataclass(frozen=True)
class _Minted:
    token: str = field(repr=False)
    expires_at: str
