"""Where a repository is now, and what reads it, by the GitHub App's credentials."""

from __future__ import annotations

from dataclasses import replace

from .fetch import Remote
from .sdk import github_app, messages
from .sdk.errors import Upstream
from .sdk.github_app import Tokens
from .sdk.messages import Push, Repository
from .sdk.settings import Settings
from .sdk.whereabouts import covering


def located(push: Push, tokens: Tokens, settings: Settings) -> tuple[Push, Remote]:
    """The push with its repository as it is now, and how to read it.

    With the App's credentials URL, name and owner are those that the repository's id has, so a name
    that somebody else took over meanwhile leads nowhere. Without them they are the event's.
    """
    if not github_app.is_app(push.scm, settings):
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
    now = messages.decode(github_app.call("GET", f"/repositories/{repository}", token, settings), Repository)
    if now.id != repository:
        raise Upstream(f"GitHub answered repository {now.id} for {repository}")
    return now, Remote(now.clone_url, token)
