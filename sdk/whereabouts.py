"""Whether the GitHub App still has a repository: asked by its id, as names come and go."""

from __future__ import annotations

from dataclasses import dataclass

from . import github_app, messages
from .settings import Settings


@dataclass(frozen=True)
class Whereabouts:
    """The installation that has the repository; or, if none has, why."""

    installation: int = 0
    gone: str = ""


def whereabouts(repository: int, installation: int, settings: Settings) -> Whereabouts:
    """Whether the App still has the repository, by its id; `installation` is where it was, 0 if unknown.

    An error is never an absence: GitHub must know the App, and say twice that it has no such repository.
    """
    here = covering(repository, settings, suspended=False)
    if here:
        return Whereabouts(here)
    app = github_app.app_token(settings)
    messages.decode(github_app.call("GET", "/app", app, settings), _Numbered)
    if not installation:
        return Whereabouts(gone="the App has no such repository")
    status, content = github_app.ask("GET", f"/app/installations/{installation}", app, settings)
    if status == 404:
        return Whereabouts(gone="the App was uninstalled")
    found = messages.decode(github_app.checked("GET", "/app/installations", status, content), _Installation)
    if found.suspended_at:
        return Whereabouts(gone="the App is suspended")
    # The least that every App may: so a refusal is for the repository's sake.
    wanted = {"repository_ids": [repository], "permissions": {"metadata": "read"}}
    path = f"/app/installations/{installation}/access_tokens"
    status, content = github_app.ask("POST", path, app, settings, wanted)
    if status == 422:
        return Whereabouts(gone="the installation does not have the repository")
    github_app.checked("POST", path, status, content)
    return Whereabouts(installation)


def covering(repository: int, settings: Settings, *, suspended: bool = True) -> int:
    """The installation that has the repository now, 0 if none has, or, unless wanted, a `suspended` one.

    The path by id stands behind the redirects of GitHub's documented one by name.
    https://docs.github.com/rest/apps/apps#get-a-repository-installation-for-the-authenticated-app
    """
    path = f"/repositories/{repository}/installation"
    status, content = github_app.ask("GET", path, github_app.app_token(settings), settings)
    if status == 404:
        return 0
    found = messages.decode(github_app.checked("GET", path, status, content), _Installation)
    return found.id if suspended or not found.suspended_at else 0


@dataclass(frozen=True)
class _Numbered:
    id: int


@dataclass(frozen=True)
class _Installation:
    id: int
    suspended_at: str | None = None
