"""What is live, as labels and annotations tell it. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from .sdk import naming
from .sdk.gateway import Status
from .sdk.settings import Settings

_GIT = naming.CLOUD + "git-"
_NUMBER = re.compile(r"[0-9]{1,18}")
_DIGEST = re.compile(r"@(sha256:[0-9a-f]{64})$")


@dataclass(frozen=True)
class Live:
    """A deployed function. `path` is its repository by ids, `function` its name in stack.yml."""

    status: Status = field(repr=False)
    path: str
    function: str

    @property
    def service(self) -> str:
        return self.status.name

    def label(self, name: str) -> str:
        return (self.status.labels or {}).get(_GIT + name, "")

    def annotation(self, name: str) -> str:
        return (self.status.annotations or {}).get(naming.CLOUD + name, "")

    @property
    def deployed(self) -> int:
        """Seconds since 1970."""
        text = self.label("deploytime")
        return int(text) if _NUMBER.fullmatch(text) else 0

    @property
    def state(self) -> str:
        return "broken" if self.status.failure else "up" if self.status.replicas else "asleep"

    @property
    def replicas(self) -> str:
        """`ready/wanted`, where the provider's list tells how many are ready: faasd's does not."""
        ready, wanted = int(self.status.available_replicas), int(self.status.replicas)
        return f"{ready}/{wanted}" if ready or self.status.failure else str(wanted)

    @property
    def digest(self) -> str:
        found = _DIGEST.search(self.status.image)
        return found[1] if found else ""

    @property
    def context(self) -> str:
        """The digest of what it was built from."""
        return self.annotation("digest")

    @property
    def repo_url(self) -> str:
        """The repository's page; a link to nothing else."""
        url = self.annotation("git-repo-url")
        return url if url.startswith(("https://", "http://")) else ""


def owned(functions: Iterable[Status], owner: str) -> list[Live]:
    """The functions of `owner` (`<scm>/<id>`, empty for everybody's), the one deployed last first."""
    found = [_live(each) for each in functions]
    theirs = [each for each in found if each and (not owner or each.path.startswith(f"{owner}/"))]
    return sorted(theirs, key=lambda each: (-each.deployed, each.service))


def described(live: Live, settings: Settings, now: float) -> dict[str, Any]:
    """As the original's list-functions, which showed what the gateway says, and then what the labels say."""
    status = live.status
    at = datetime.fromtimestamp(live.deployed, timezone.utc)
    return {
        "name": live.service,
        "image": status.image,
        "invocationCount": int(status.invocation_count),
        "replicas": int(status.replicas),
        "availableReplicas": int(status.available_replicas),
        "labels": dict(status.labels or {}),
        "owner": live.label("owner"),
        "repo": live.label("repo"),
        "branch": live.label("branch"),
        "commit": live.label("sha"),
        "deployedAt": at.isoformat().replace("+00:00", "Z"),
        "ageSeconds": max(0, int(now) - live.deployed),
        "digest": live.digest,
        "url": url(live, settings),
        **({"failure": status.failure} if status.failure else {}),
    }


def url(live: Live, settings: Settings) -> str:
    return settings.function_url(live.label("owner"), live.function, live.service)


def _live(status: Status) -> Live | None:
    labels = status.labels or {}
    scm, owner, owner_id, repo_id = (
        labels.get(_GIT + name, "") for name in ("scm", "owner", "owner-id", "repo-id")
    )
    if labels.get(f"{_GIT}cloud") != "1" or status.name in naming.RESERVED:
        return None
    if not (scm and _NUMBER.fullmatch(owner_id) and _NUMBER.fullmatch(repo_id)):
        return None
    path = naming.repository_path(scm, owner_id, repo_id)
    return Live(status, path, status.name.removeprefix(f"{owner.lower()}-"))
