"""What the GitHub App is installed on.

https://docs.github.com/rest/apps
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from .installed import Listing
from .sdk import github_app, messages
from .sdk.errors import CloudError, Unavailable, Upstream
from .sdk.github_app import Tokens
from .sdk.messages import Repository
from .sdk.settings import Settings

_PER_PAGE = 100
# 10,000 installations, and as many repositories of each.
_PAGES = 100


@dataclass(frozen=True)
class App:
    """GitHub as the App may ask it; each listing ends by `deadline` (time.monotonic)."""

    tokens: Tokens
    settings: Settings
    deadline: float

    def listed(self) -> Listing:
        """All that the App may read. What can't be listed is told among the problems."""
        repositories: dict[int, tuple[Repository, int]] = {}
        whole: dict[int, int] = {}
        problems: list[str] = []
        try:
            installations = self._installations() if self.settings.github_app_id else []
        except CloudError as error:
            return Listing({}, {}, (error.message,))
        for installation in installations:
            if installation.suspended_at:
                continue
            try:
                is_whole = self._repositories(installation.id, repositories)
            except CloudError as error:
                problems.append(f"installation {installation.id}: {error.message}")
                continue
            if is_whole:
                whole[installation.account.id] = installation.id
        return Listing(repositories, whole, tuple(problems))

    def _installations(self) -> list[_Installation]:
        found: dict[int, _Installation] = {}
        token = github_app.app_token(self.settings)
        for page in range(1, _PAGES + 1):
            rows = messages.decode(self._page("/app/installations", page, token), list[_Installation])
            found.update({row.id: row for row in rows})
            if len(rows) < _PER_PAGE:
                return list(found.values())
        raise Upstream(f"the App has more than {_PAGES * _PER_PAGE} installations")

    def _repositories(self, installation: int, found: dict[int, tuple[Repository, int]]) -> bool:
        """Add the installation's repositories to `found`; whether these were all."""
        token, seen = self.tokens.token(installation, None, self.settings), set[int]()
        for page in range(1, _PAGES + 1):
            answer = self._page("/installation/repositories", page, token)
            rows = messages.decode(answer, _Repositories)
            found.update({row.id: (row, installation) for row in rows.repositories})
            seen.update(row.id for row in rows.repositories)
            if len(rows.repositories) < _PER_PAGE:
                return len(seen) == rows.total_count
        return False

    def _page(self, path: str, page: int, token: str) -> bytes:
        if time.monotonic() > self.deadline:
            raise Unavailable("there was no time to list all that the GitHub App is installed on")
        return github_app.call("GET", f"{path}?per_page={_PER_PAGE}&page={page}", token, self.settings)


@dataclass(frozen=True)
class _Account:
    id: int


@dataclass(frozen=True)
class _Installation:
    id: int
    account: _Account
    suspended_at: str | None = None


@dataclass(frozen=True)
class _Repositories:
    total_count: int
    repositories: tuple[Repository, ...]
