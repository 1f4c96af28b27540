"""`python3 -m local.gitserver.heads`: deliver the event of every repository's head again.

For after a restore: which pushes had ended when the backup was made, only their deploy can tell.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from sdk import secrets
from sdk.errors import CloudError
from sdk.gateway import Gateway
from sdk.settings import Settings

from . import event
from .deliver import sent
from .event import Update
from .repository import ROOT, repositories

BRANCH = "refs/heads/master"


def deliver(settings: Settings, public_url: str, root: Path = ROOT) -> tuple[int, list[str]]:
    """How many were delivered, and why others were not."""
    gateway = Gateway.of(settings)
    keys = secrets.read("github-webhook-secret", settings.secret_mount_path)
    delivered, problems = 0, []
    for repository in repositories(root):
        try:
            head = repository.git("rev-parse", "--verify", "--quiet", f"{BRANCH}^{{commit}}")
        except subprocess.CalledProcessError:
            continue  # nothing was pushed to it, or its branch is deleted
        update = Update(head, head, BRANCH)
        body, headers = event.signed(event.payload(repository, update, public_url=public_url), keys)
        try:
            sent(gateway, body, headers)
            delivered += 1
        except CloudError as error:
            problems.append(f"{repository.owner}/{repository.name}: {error.message}")
    return delivered, problems


if __name__ == "__main__":
    count, failed = deliver(Settings.read(), os.environ.get("PUBLIC_URL", ""))
    print(f"heads of {count} repositories are delivered again: what is live already stays as it is")
    for line in failed:
        print(f"{line}; `python -m local retry` in a clone of it tries again")
