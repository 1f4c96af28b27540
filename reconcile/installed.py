"""Which repositories are installed, by what is deployed and by what the GitHub App lists. Pure."""

from __future__ import annotations

import re
import uuid
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias
from urllib.parse import urlsplit

from .sdk import naming, records
from .sdk.gateway import Status
from .sdk.messages import NO_COMMIT, Collect, Installation, Owner, Push, Repository
from .sdk.settings import Settings

Key: TypeAlias = tuple[str, int]  # scm and repository id

GITHUB = "github"
_GIT = naming.CLOUD + "git-"
_ID = re.compile(r"[0-9]{1,18}")  # more than GitHub will ever have, and no more than JSON takes
_SCM = re.compile(r"[a-z0-9]{1,20}")
_SHA = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")


@dataclass(frozen=True)
class Known:
    """A repository, the commit that its last deploy was of (empty if there was none), and when that was."""

    scm: str
    repository: Repository
    sha: str = ""
    installation: int | None = None
    at: int = 0

    @property
    def key(self) -> Key:
        return self.scm, self.repository.id


@dataclass(frozen=True)
class Listing:
    """What the GitHub App may read, by repository id with the installation's.

    `whole` are the installations that were listed to the end, by the owner's id; `problems` say why others
    were not.
    """

    repositories: Mapping[int, tuple[Repository, int]]
    whole: Mapping[int, int]
    problems: tuple[str, ...] = ()


def deployed(functions: Iterable[Status], settings: Settings) -> dict[Key, Known]:
    """One entry for each repository that has functions, as the one deployed last describes it.

    Functions whose labels say less than a push needs are left out: they are none of ours, or too old.
    """
    found: dict[Key, Known] = {}
    for function in functions:
        known = _known(function, settings)
        if known and known.at >= found.get(known.key, known).at:
            found[known.key] = known
    return found


def merged(there: Mapping[Key, Known], listing: Listing) -> dict[Key, Known]:
    """What is deployed or listed. Where the App knows a repository, it is as the App says."""
    found = dict(there)
    for number, (repository, installation) in listing.repositories.items():
        known = there.get((GITHUB, number)) or Known(GITHUB, repository)
        found[GITHUB, number] = replace(known, repository=repository, installation=installation)
    return found


def current(found: Mapping[Key, Known]) -> dict[Key, Known]:
    """Of several ids with one name the one that has it now: a repository that was made again has a new id.

    Were both looked at, each would take the functions over from the other, again and again.
    """
    named: dict[tuple[str, str], Known] = {}
    for known in sorted(
        found.values(), key=lambda row: (row.installation is not None, row.at, row.repository.id)
    ):
        named[known.scm, known.repository.full_name.lower()] = known
    return {known.key: known for known in named.values()}


def readable(known: Known, settings: Settings) -> bool:
    """Whether git-tar can read it: a private one of GitHub's that the App does not list it can't."""
    through_app = known.scm == GITHUB and bool(settings.github_app_id)
    return not (through_app and known.repository.private and known.installation is None)


def unlisted(there: Mapping[Key, Known], listing: Listing) -> dict[Key, Known]:
    """What is deployed and may have left: the owner's installation was listed whole, and lacks it."""
    return {
        key: known
        for key, known in there.items()
        if known.scm == GITHUB
        and known.repository.id not in listing.repositories
        and known.repository.owner.id in listing.whole
    }


def lost(suspects: Mapping[Key, Known], functions: Iterable[Status]) -> Counter[int]:
    """How many functions go with them, by the owner's id, as garbage-collect counts them."""
    held = Counter(_key_of(function) for function in functions)
    found: Counter[int] = Counter()
    for (scm, number), known in suspects.items():
        found[known.repository.owner.id] += held[scm, str(number)]
    return found


def push(known: Known, settings: Settings, *, periodic: bool) -> Push:
    """The message that gh-push would have queued."""
    return Push(
        scm=known.scm,
        delivery=f"{records.RECONCILE}{uuid.uuid4()}",
        ref=f"refs/heads/{settings.build_branch}",
        before=known.sha or NO_COMMIT,
        after=NO_COMMIT,
        repository=known.repository,
        installation=None if known.installation is None else Installation(known.installation),
        periodic=periodic,
    )


def uninstall(known: Known) -> Collect:
    """The request to garbage-collect for a repository that is gone."""
    owner, repository = known.repository.owner, known.repository
    return Collect(
        scm=known.scm,
        delivery=f"{records.RECONCILE}{uuid.uuid4()}",
        owner=owner.login,
        owner_id=owner.id,
        repo=repository.name,
        repo_id=repository.id,
        functions=(),
        sha=known.sha,
        reason="uninstall",
        uninstall=True,
    )


def _key_of(function: Status) -> tuple[str, str]:
    labels = function.labels or {}
    is_ours = labels.get(f"{_GIT}cloud") == "1" and function.name not in naming.RESERVED
    return (labels.get(f"{_GIT}scm", ""), labels.get(f"{_GIT}repo-id", "")) if is_ours else ("", "")


def _known(function: Status, settings: Settings) -> Known | None:
    labels, annotations = function.labels or {}, function.annotations or {}
    said = {name: labels.get(_GIT + name, "") for name in ("scm", "owner", "repo", "sha")}
    numbers = [labels.get(_GIT + name, "") for name in ("owner-id", "repo-id")]
    if labels.get(f"{_GIT}cloud") != "1" or function.name in naming.RESERVED:
        return None
    if not (said["owner"] and said["repo"] and _SCM.fullmatch(said["scm"])):
        return None
    if not all(_ID.fullmatch(number) for number in numbers):
        return None
    html_url = annotations.get(f"{_GIT}repo-url", "")
    clone_url = annotations.get(f"{_GIT}clone-url") or _clone_url(html_url, said["scm"], settings)
    if not clone_url:
        return None
    owner_id, repo_id = map(int, numbers)
    owner, repo = _names(clone_url, said["owner"], said["repo"])
    repository = Repository(
        id=repo_id,
        name=repo,
        full_name=f"{owner}/{repo}",
        clone_url=clone_url,
        html_url=html_url,
        private=labels.get(f"{_GIT}private") == "1",
        owner=Owner(owner, owner_id),
    )
    sha = said["sha"] if _SHA.fullmatch(said["sha"]) else ""
    return Known(said["scm"], repository, sha, at=_number(labels.get(f"{_GIT}deploytime", "")))


def _clone_url(html_url: str, scm: str, settings: Settings) -> str:
    """What was deployed before its clone URL was kept: the page's path, on a host that git-tar clones from.

    The local git server has another name for authors than it has for git-tar.
    """
    try:
        parts = urlsplit(html_url)
    except ValueError:
        return ""
    origin = f"{parts.scheme}://{parts.netloc}"
    allowed = [host.rstrip("/") for host in settings.allowed_git_hosts]
    if origin not in allowed and scm == settings.git_scm and allowed:
        origin = allowed[0]
    return f"{origin}{parts.path.rstrip('/')}.git" if origin in allowed and parts.path.strip("/") else ""


def _names(clone_url: str, owner: str, repo: str) -> tuple[str, str]:
    """Owner and repository as the URL has them if it is theirs: a label can't hold every name."""
    path = clone_url.removesuffix(".git").split("/")[-2:]
    is_theirs = [naming.label_value(part) for part in path] == [owner, repo]
    return (path[0], path[1]) if is_theirs else (owner, repo)


def _number(text: str) -> int:
    return int(text) if _ID.fullmatch(text) else 0


def named(found: Mapping[Key, Known], full_name: str) -> list[Known]:
    """Those of that name, in whatever case it is written."""
    return [known for known in found.values() if known.repository.full_name.lower() == full_name.lower()]
