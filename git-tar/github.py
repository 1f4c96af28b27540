"""The GitHub App's credentials: a token for one repository, and where that repository is now.

https://docs.github.com/apps/creating-github-apps/authenticating-with-a-github-app
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import jwt
import requests
from cachetools import LRUCache

from .fetch import Remote
from .sdk import messages
from .sdk.errors import Failed, Misconfigured, Refused, Unavailable, Upstream
from .sdk.messages import Push, Repository
from .sdk.settings import Settings

_SECONDS = 15
# A JWT lives 10 minutes at most; clocks differ by less than one.
_JWT_SECONDS, _CLOCK_SECONDS = 540, 60
# A token that ends sooner than this is not begun with: a push takes at most 15 minutes.
_SPARE_SECONDS = 20 * 60


@dataclass(frozen=True)
class Token:
    """An installation token; `expires` in seconds since 1970."""

    text: str = field(repr=False)
    expires: float


@dataclass
class Tokens:
    """Tokens that were minted, until shortly before they expire."""

    _minted: LRUCache[tuple[str, int, int], Token] = field(default_factory=lambda: LRUCache(500))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def token(self, installation: int, repository: int, settings: Settings) -> str:
        """A token that reads the contents of the repository, and nothing else."""
        key = (settings.github_app_id, installation, repository)
        with self._lock:
            token = self._minted.get(key)
        if not token or token.expires - time.time() < _SPARE_SECONDS:
            token = _mint(installation, repository, settings)
            with self._lock:
                self._minted[key] = token
        return token.text


def located(push: Push, tokens: Tokens, settings: Settings) -> tuple[Push, Remote]:
    """The push with its repository as it is now, and how to read it.

    With the App's credentials URL, name and owner are those that the repository's id has, so a name
    that somebody else took over meanwhile leads nowhere. Without them they are the event's.
    """
    if not settings.github_app_id or push.scm != "github" or not push.installation:
        return push, Remote(push.repository.clone_url)
    token = tokens.token(push.installation.id, push.repository.id, settings)
    found = _call("GET", f"/repositories/{push.repository.id}", token, settings)
    now = messages.decode(found, Repository)
    if now.id != push.repository.id:
        raise Upstream(f"GitHub answered repository {now.id} for {push.repository.id}")
    return replace(push, repository=now), Remote(now.clone_url, token)


def _mint(installation: int, repository: int, settings: Settings) -> Token:
    wanted = {"repository_ids": [repository], "permissions": {"contents": "read"}}
    path = f"/app/installations/{installation}/access_tokens"
    found = messages.decode(_call("POST", path, _app_token(settings), settings, wanted), _Minted)
    return Token(found.token, datetime.fromisoformat(found.expires_at.replace("Z", "+00:00")).timestamp())


def _app_token(settings: Settings) -> str:
    now = int(time.time())
    claims = {"iat": now - _CLOCK_SECONDS, "exp": now + _JWT_SECONDS, "iss": settings.github_app_id}
    try:
        key = (Path(settings.secret_mount_path) / "private-key").read_bytes()
        return jwt.encode(claims, key, algorithm="RS256")
    except OSError:
        raise Misconfigured("secret private-key is missing: it is the GitHub App's private key") from None
    except (ValueError, TypeError, jwt.PyJWTError):
        raise Misconfigured("secret private-key is no RSA key in PEM") from None


def _call(
    method: str, path: str, token: str, settings: Settings, body: Mapping[str, Any] | None = None
) -> bytes:
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
    if 200 <= answer.status_code < 300:
        return answer.content
    limited = answer.headers.get("X-RateLimit-Remaining") == "0" or "Retry-After" in answer.headers
    if answer.status_code >= 500 or answer.status_code == 429 or limited:
        raise Unavailable(f"GitHub answered {answer.status_code} to {method} {path}")
    if answer.status_code == 401:
        raise Misconfigured("GitHub does not know the App's key: check github_app_id and private-key")
    if answer.status_code == 404:
        raise Failed(f"GitHub has no {path} for this App: it was uninstalled, or the repository is gone")
    raise Refused(f"GitHub answered {answer.status_code} to {method} {path}: the App needs contents: read")


@dataclass(frozen=True)
class _Minted:
    token: str = field(repr=False)
    expires_at: str
