"""Where a repository is now, and a token that reads it, for the GitHub App."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field, replace
from datetime import datetime

from cachetools import LRUCache

from . import api
from .fetch import Remote
from .sdk import messages
from .sdk.errors import Upstream
from .sdk.messages import Push, Repository
from .sdk.settings import Settings
from .whereabouts import covering

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

    def forget(self, installation: int, repository: int) -> None:
        """The installation has left: GitHub takes its tokens no more, not even if it comes back."""
        with self._lock:
            for key in [key for key in self._minted if key[2] == repository or key[1] == installation]:
                del self._minted[key]


def located(push: Push, tokens: Tokens, settings: Settings) -> tuple[Push, Remote]:
    """The push with its repository as it is now, and how to read it.

    With the App's credentials URL, name and owner are those that the repository's id has, so a name
    that somebody else took over meanwhile leads nowhere. Without them they are the event's.
    """
    if not is_app(push.scm, settings):
        return push, Remote(push.repository.clone_url)
    # An event of a transfer names no installation.
    installation = push.installation.id if push.installation else covering(push.repository.id, settings)
    if not installation:
        return push, Remote(push.repository.clone_url)
    now, remote = described(push.repository.id, installation, tokens, settings)
    return replace(push, repository=now), remote


def described(
    repository: int, installation: int, tokens: Tokens, settings: Settings
) -> tuple[Repository, Remote]:
    """The repository as it is now, and how to read it."""
    token = tokens.token(installation, repository, settings)
    now = messages.decode(api.call("GET", f"/repositories/{repository}", token, settings), Repository)
    if now.id != repository:
        raise Upstream(f"GitHub answered repository {now.id} for {repository}")
    return now, Remote(now.clone_url, token)


def is_app(scm: str, settings: Settings) -> bool:
    """Whether GitHub can be asked as its App."""
    return scm == "github" and bool(settings.github_app_id)


def _mint(installation: int, repository: int, settings: Settings) -> Token:
    wanted = {"repository_ids": [repository], "permissions": {"contents": "read"}}
    path = f"/app/installations/{installation}/access_tokens"
    found = messages.decode(api.call("POST", path, api.app_token(settings), settings, wanted), _Minted)
    return Token(found.token, datetime.fromisoformat(found.expires_at.replace("Z", "+00:00")).timestamp())


@dataclass(frozen=True)
class _Minted:
    token: str = field(repr=False)
    expires_at: str
