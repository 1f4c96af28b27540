"""Runs the registry, and tidies its storage while it stands still: at each start, and once a day.

The registry deletes nothing by itself, and its garbage collection must not run beside pushes:
https://distribution.github.io/distribution/about/garbage-collection/
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

CONFIG = "/etc/openfaas-cloud/registry.yml"
REPOSITORIES = Path("/var/lib/registry/docker/registry/v2/repositories")
# Each image has two tags: the commit's, and that of its context.
KEPT_TAGS = 100
_DAY_SECONDS = 24 * 3600
_STOP_SECONDS = 10


def tidy(repositories: Path, kept: int) -> list[Path]:
    """Delete all but the `kept` newest tags of each repository; returns the folders of those deleted."""
    deleted = []
    for tags in repositories.glob("**/_manifests/tags"):
        for old in sorted(tags.iterdir(), key=_pushed, reverse=True)[kept:]:
            shutil.rmtree(old)
            deleted.append(old)
    return deleted


def _pushed(tag: Path) -> float:
    link = tag / "current" / "link"
    return link.stat().st_mtime if link.exists() else 0


def main() -> None:
    """Serve until told to stop; ends with the registry's own status if that ends."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    while True:
        if REPOSITORIES.exists():
            deleted = tidy(REPOSITORIES, int(os.environ.get("KEPT_TAGS", KEPT_TAGS)))
            print(f"tidied: {len(deleted)} old tags", flush=True)
            collect = ("docker-registry", "garbage-collect", "--delete-untagged", CONFIG)
            subprocess.run(collect, stdout=subprocess.DEVNULL)
        serving = subprocess.Popen(("docker-registry", "serve", CONFIG))
        try:
            sys.exit(serving.wait(_DAY_SECONDS))
        except subprocess.TimeoutExpired:
            continue
        finally:
            serving.terminate()
            serving.wait(_STOP_SECONDS)


if __name__ == "__main__":
    main()
