"""The event that GitHub would send for a push: same JSON shape, headers and signature.

https://docs.github.com/en/webhooks/webhook-events-and-payloads#push
"""

from __future__ import annotations

import hashlib
import hmac
import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sdk.messages import NO_COMMIT
from sdk.secrets import Keys
from sdk.signature import GITHUB_HEADER, sign

from .repository import BareRepository

# Where git-tar fetches from, on the platform's network.
INTERNAL_URL = "http://git-server:8080"
_COMMITS = 20
_COMMIT_FORMAT = "%H%x00%T%x00%s%x00%aI%x00%an%x00%ae%x00%cn%x00%ce"
_COMMIT_FIELDS = _COMMIT_FORMAT.count("%x00") + 1


@dataclass(frozen=True)
class Update:
    """One ref that a push moved, from commit `before` to `after`."""

    before: str
    after: str
    ref: str


def payload(repository: BareRepository, update: Update, *, public_url: str) -> Mapping[str, Any]:
    """GitHub's push payload for `update`."""
    owner, full_name = repository.owner, f"{repository.owner}/{repository.name}"
    url = f"{public_url.rstrip('/')}/{full_name}"
    user = {"login": owner, "id": repository.owner_id, "type": "User", "site_admin": False}
    commits = [] if update.after == NO_COMMIT else _commits(repository, update, url)
    created, deleted = update.before == NO_COMMIT, update.after == NO_COMMIT
    return {
        "ref": update.ref,
        "before": update.before,
        "after": update.after,
        "repository": {
            "id": repository.id,
            "name": repository.name,
            "full_name": full_name,
            "private": False,
            "owner": {**user, "name": owner, "email": f"{owner}@localhost"},
            "html_url": url,
            "url": url,
            "clone_url": f"{INTERNAL_URL}/{full_name}.git",
            "default_branch": "master",
            "master_branch": "master",
        },
        "pusher": {"name": owner, "email": f"{owner}@localhost"},
        "sender": user,
        "created": created,
        "deleted": deleted,
        "forced": not (created or deleted or repository.is_ancestor(update.before, update.after)),
        "base_ref": None,
        "compare": f"{url}/compare/{update.before[:12]}...{update.after[:12]}",
        "commits": commits,
        "head_commit": commits[-1] if commits else None,
    }


def signed(body: Mapping[str, Any], keys: Keys) -> tuple[bytes, dict[str, str]]:
    """The body and headers of the delivery. GitHub still sends the SHA-1 signature too."""
    raw = json.dumps(body, separators=(",", ":")).encode()
    sha1 = hmac.new(keys.signing, raw, hashlib.sha1).hexdigest()
    return raw, {
        "Content-Type": "application/json",
        "User-Agent": "GitHub-Hookshot/local",
        "X-GitHub-Event": "push",
        "X-GitHub-Delivery": str(uuid.uuid4()),
        "X-Hub-Signature": f"sha1={sha1}",
        GITHUB_HEADER: sign(raw, keys),
    }


def _commits(repository: BareRepository, update: Update, url: str) -> list[Mapping[str, Any]]:
    """The newest commits of the push, oldest first."""
    new = update.after if update.before == NO_COMMIT else f"{update.before}..{update.after}"
    # -z: a subject may hold anything that ends a line.
    options = ("-z", f"--max-count={_COMMITS}", "--reverse", f"--format={_COMMIT_FORMAT}")
    fields = repository.git("log", *options, new, "--").split("\0")
    starts = range(0, len(fields) - 1, _COMMIT_FIELDS)  # a NUL ends the last commit too
    return [_commit(fields[start : start + _COMMIT_FIELDS], url) for start in starts]


def _commit(fields: list[str], url: str) -> Mapping[str, Any]:
    sha, tree, subject, time, author, author_email, committer, committer_email = fields
    return {
        "id": sha,
        "tree_id": tree,
        "distinct": True,
        "message": subject,
        "timestamp": time,
        "url": f"{url}/commit/{sha}",
        "author": {"name": author, "email": author_email, "username": author},
        "committer": {"name": committer, "email": committer_email, "username": committer},
        "added": [],
        "removed": [],
        "modified": [],
    }
